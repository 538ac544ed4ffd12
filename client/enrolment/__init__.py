"""How this site joins a federation, and changes its key: `insitu-client join` and `rotate`.

channel.py    the coordinator's enrolment service, through the hospital's proxy where there is one
homes.py      a home for who joins without having made one; killed at any point, the same again makes it whole
joining.py    the steps of `join`
checks.py     what else has to be right before the daemon can connect: clock, versions, the way to the fleet port
rotation.py   another key in the place of the site's, signed by the old one
"""
