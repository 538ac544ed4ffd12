"""How sites join: the operator invites, the service admits who has the ticket, and refuses everybody else alike.

register.py      invitations and refused tries, in the coordinator's store
invitations.py   the operator's side: `invite`, and how the invitations stand
decisions.py     who is admitted, who may change their key; and why not, for the operator
limits.py        nonces that are good once, and how often one address may ask
service.py       the gRPC service, and its listener: the coordinator's second public port
"""
