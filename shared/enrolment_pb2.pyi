from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class BeginRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BeginReply(_message.Message):
    __slots__ = ("nonce", "time", "protocol")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    time: float
    protocol: int
    def __init__(self, nonce: _Optional[bytes] = ..., time: _Optional[float] = ..., protocol: _Optional[int] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("nonce", "site", "ticket", "public_key", "proof", "possession")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    POSSESSION_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    site: str
    ticket: bytes
    public_key: bytes
    proof: bytes
    possession: bytes
    def __init__(self, nonce: _Optional[bytes] = ..., site: _Optional[str] = ..., ticket: _Optional[bytes] = ..., public_key: _Optional[bytes] = ..., proof: _Optional[bytes] = ..., possession: _Optional[bytes] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("site", "coordinator", "version")
    SITE_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    site: str
    coordinator: str
    version: str
    def __init__(self, site: _Optional[str] = ..., coordinator: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class RotateRequest(_message.Message):
    __slots__ = ("nonce", "old_key", "new_key", "by_old", "by_new")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    OLD_KEY_FIELD_NUMBER: _ClassVar[int]
    NEW_KEY_FIELD_NUMBER: _ClassVar[int]
    BY_OLD_FIELD_NUMBER: _ClassVar[int]
    BY_NEW_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    old_key: bytes
    new_key: bytes
    by_old: bytes
    by_new: bytes
    def __init__(self, nonce: _Optional[bytes] = ..., old_key: _Optional[bytes] = ..., new_key: _Optional[bytes] = ..., by_old: _Optional[bytes] = ..., by_new: _Optional[bytes] = ...) -> None: ...

class RotateReply(_message.Message):
    __slots__ = ("site",)
    SITE_FIELD_NUMBER: _ClassVar[int]
    site: str
    def __init__(self, site: _Optional[str] = ...) -> None: ...
