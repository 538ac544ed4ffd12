"""What gRPC is told before anything loads it: it reads the environment once, and Python cannot tell it otherwise.

It would speak every TLS from 1.2 on. Without a cipher of TLS 1.2 that fits the coordinator's certificate (which is
ECDSA, never RSA), there is none but TLS 1.3; `tests/federation/test_enrolment.py` tries the older one.
"""

from __future__ import annotations

import os

os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES256-GCM-SHA384"
os.environ["GRPC_VERBOSITY"] = "NONE"  # its log is of strangers' mistakes; ours are told in our words
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # our processes are started anew, not forked
os.environ.setdefault("GRPC_DNS_RESOLVER", "native")  # names are looked up as everything else on the machine does
