"""Where the grid's key comes from: a password, a key file, or a key of the user's own.

The first of these that is given counts: the ``password`` or ``key_file`` argument, then
``GRID_PASSWORD`` or ``GRID_KEY_FILE``, then a random key kept in the user's config folder
(``$XDG_CONFIG_HOME`` or ``~/.config``, ``peergrid/key``) and made when it is first needed.

A key file is one line of 64 hexadecimal digits: 32 random bytes. Files are made complete or not
at all: written under another name, synced, then linked to their own, which fails if another process
was first; so any number of processes that start at the same moment agree on one key.

Promises: a key made without asking, and a password too weak to resist guessing, are for this host
only, and ``BadKey`` says what to do instead. A secret never appears in an error, a log or a
``repr``. A key file that others may change or that everybody may read is refused.

Does not derive anything from a key (``peers/security.py`` does) and judges a password by its length
only.
"""

import os
import re
import secrets
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from grid.errors import BadKey

PASSWORD_VARIABLE = "GRID_PASSWORD"  # noqa: S105  (the name of a variable)
KEY_FILE_VARIABLE = "GRID_KEY_FILE"
SECRET_VARIABLES = (PASSWORD_VARIABLE, KEY_FILE_VARIABLE)
"""What must not reach the environment of user code."""

PASSWORD_LENGTH_MIN = 8
"""Shorter ones are guessed in hours, even through scrypt."""

_KEY = re.compile(r"[0-9a-fA-F]{64}")
_READ_BYTES_MAX = 4096

_HOW_TO_SHARE = (
    "Make a key file with `grid key --new FILE`, copy it to every host readable by you alone "
    f"(chmod 600), and pass key_file= or set {KEY_FILE_VARIABLE}=FILE; or give every host the same "
    f"password of at least {PASSWORD_LENGTH_MIN} characters in {PASSWORD_VARIABLE}."
)


@dataclass(frozen=True)
class Key:
    """A secret and where it came from.

    ``source`` is for people; ``path`` is set for key files; ``stretch`` says that the secret is a
    password; ``automatic`` that nobody configured it.
    """

    source: str
    secret: bytes = field(repr=False)
    stretch: bool = False
    automatic: bool = False
    path: Path | None = None

    def reveal(self) -> str:
        """Return the secret as a key file holds it. Only for a person who asked to see it.

        Raises ``BadKey`` for a password: whoever set it knows it.
        """
        if self.stretch:
            raise BadKey(f"the key is a password ({self.source}) and is not shown")
        return self.secret.hex()


def find_key(
    *,
    password: str | bytes | None = None,
    key_file: str | Path | None = None,
    loopback_only: bool,
    weak: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Key:
    """Return the key that these arguments and this environment name.

    ``loopback_only`` says that the grid is reachable from this host alone, ``weak`` that a password
    may be weak all the same. An empty variable counts as not set; an empty ``password`` argument is
    a (weak) password. Makes the user's own key if that is what is needed and it is not there yet.
    Raises ``BadKey``.
    """
    key = (
        _configured(password, key_file, "password", "key_file")
        or _configured(
            environ.get(PASSWORD_VARIABLE) or None,
            environ.get(KEY_FILE_VARIABLE) or None,
            PASSWORD_VARIABLE,
            KEY_FILE_VARIABLE,
        )
        or _own_key(loopback_only, environ)
    )
    if key.stretch and not (loopback_only or weak) and len(key.secret) < PASSWORD_LENGTH_MIN:
        raise BadKey(
            f"the {key.source} is shorter than {PASSWORD_LENGTH_MIN} characters, too weak for a "
            f"grid that other hosts can reach. {_HOW_TO_SHARE}"
        )
    return key


def own_key_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where this user's own key is kept, whether or not it is there yet."""
    config = environ.get("XDG_CONFIG_HOME", "")
    if not Path(config).is_absolute():  # the XDG rule: a relative one is ignored
        home = environ.get("HOME") or "~"
        config = str(Path(home).expanduser() / ".config")
    return Path(config) / "peergrid" / "key"


def new_key_file(path: str | Path) -> Path:
    """Make a new key file, readable by its owner alone, and return its path.

    Raises ``BadKey`` if something of that name exists (it is left alone) or it cannot be made.
    """
    made = Path(path).expanduser().absolute()
    if not _publish(made):
        raise BadKey(f"{made} exists and was left as it is; remove it or choose another name")
    return made


def read_key_file(path: Path, *, private: bool = False) -> bytes:
    """Return the 32 bytes of a key file.

    ``private`` also refuses links and a file that its group may read. Raises ``BadKey``.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe of that name must not hang us
    try:
        fd = os.open(path, flags | (os.O_NOFOLLOW if private else 0))
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise BadKey(f"cannot read the key file {path}: {reason}") from error
    with os.fdopen(fd, "rb") as file:
        _check_owner(path, os.fstat(fd), private)
        text = file.read(_READ_BYTES_MAX).decode("ascii", "replace").strip()
    if not _KEY.fullmatch(text):
        raise BadKey(
            f"{path} is not a key file: one line of 64 hexadecimal digits is expected. "
            "Make one with `grid key --new FILE`."
        )
    return bytes.fromhex(text)


def _configured(
    password: str | bytes | None, key_file: str | Path | None, *names: str
) -> Key | None:
    """The key that one pair of settings names; ``names`` are theirs."""
    if password is not None and key_file is not None:
        raise BadKey(f"both {names[0]} and {names[1]} are given; a grid has one key: keep one")
    if password is not None:
        secret = password.encode() if isinstance(password, str) else bytes(password)
        return Key(source=names[0], secret=secret, stretch=True)
    if key_file is not None:
        path = Path(key_file).expanduser().absolute()
        return Key(source=f"key file {path}", secret=read_key_file(path), path=path)
    return None


def _own_key(loopback_only: bool, environ: Mapping[str, str]) -> Key:
    path = own_key_path(environ)
    if not loopback_only:
        raise BadKey(f"a grid that other hosts can reach needs a key of its own. {_HOW_TO_SHARE}")
    if not path.exists():
        _publish(path)
    secret = read_key_file(path, private=True)
    return Key(source=f"user's own key {path}", secret=secret, automatic=True, path=path)


def _check_owner(path: Path, status: os.stat_result, private: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadKey(f"the key file {path} is not a regular file")
    if status.st_uid not in (os.geteuid(), 0):
        raise BadKey(
            f"the key file {path} belongs to user {status.st_uid}, not to you (user "
            f"{os.geteuid()}): its owner could change it. Make a copy of your own."
        )
    if status.st_mode & (0o077 if private else 0o027):
        raise BadKey(
            f"the key file {path} can be read or changed by other users (mode "
            f"{stat.S_IMODE(status.st_mode):o}): run `chmod 600 {path}`"
        )


def _publish(path: Path) -> bool:
    """Put a new random key at ``path``, whole or not at all. False: something was there."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd, written = tempfile.mkstemp(dir=path.parent, prefix=".key-")  # mode 0600
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(secrets.token_hex(32).encode() + b"\n")
                file.flush()
                os.fsync(fd)
            os.link(written, path)  # unlike rename, refuses to replace the key of another process
        finally:
            Path(written).unlink()
    except FileExistsError:
        return False
    except OSError as error:
        raise BadKey(
            f"cannot make the key file {path}: {error.strerror or error}. {_HOW_TO_SHARE}"
        ) from error
    return True
