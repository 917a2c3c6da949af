"""Security: who has the key gets in, who has not does not, and the secret stays secret."""

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from grid.errors import BadKey
from peers.keys import Key, find_key, new_key_file, own_key_path, read_key_file
from peers.security import Security, fingerprint, issue, key_tag, secure

_PASSWORD = "correct horse battery"


def _secure(grid: str = "g", password: str = _PASSWORD) -> Security:
    return secure(grid, password=password, loopback_only=False, environ={})


def _handshake(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> tuple[str, str]:
    """Join two ends in memory; return who the client and who the server met."""
    upstream, downstream = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(downstream, upstream)
    server = server_context.wrap_bio(upstream, downstream, server_side=True)
    for end in (client, server, client, server):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass
    met = [end.getpeercert(binary_form=True) for end in (client, server)]
    assert met[0] is not None
    assert met[1] is not None
    assert client.version() == "TLSv1.3"
    return fingerprint(met[0]), fingerprint(met[1])


def test_two_processes_with_one_key_verify_each_other() -> None:
    a, b = _secure(), _secure()
    assert a.peer_id != b.peer_id
    assert a.tag == b.tag
    assert _handshake(a.client_context, b.server_context) == (b.peer_id, a.peer_id)


@pytest.mark.parametrize(
    "other", [("g", "another password"), ("another grid", _PASSWORD)], ids=["password", "grid name"]
)
def test_another_key_or_grid_does_not_get_in(other: tuple[str, str]) -> None:
    ours, theirs = _secure(), _secure(*other)
    assert ours.tag != theirs.tag
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(theirs.client_context, ours.server_context)
    theirs.client_context.verify_mode = ssl.CERT_NONE  # an attacker does not check us
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(theirs.client_context, ours.server_context)


def test_no_certificate_no_entry() -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError, match=r"(?i)did.not.return.a.certificate"):
        _handshake(stranger, _secure().server_context)


def test_older_tls_is_refused() -> None:
    ours = _secure()
    assert ours.server_context.minimum_version == ssl.TLSVersion.TLSv1_3
    old = _secure().client_context
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        _handshake(old, ours.server_context)


def test_the_authority_is_the_same_everywhere_and_dates_lock_nobody_out() -> None:
    first, second = (_secure().server_context.get_ca_certs(binary_form=True) for _ in range(2))
    assert first == second
    authority = x509.load_der_x509_certificate(first[0])
    assert authority.not_valid_before_utc.year == 1970
    assert authority.not_valid_after_utc.year == 9999


def test_the_secret_is_in_no_repr() -> None:
    key = find_key(password=_PASSWORD, loopback_only=False, environ={})
    for shown in (repr(key), str(key), repr(issue("g", key)), str(vars(issue("g", key)))):
        assert _PASSWORD not in shown
        assert key.secret.hex() not in shown


def test_the_tag_tells_keys_apart_without_an_identity() -> None:
    key = Key("password", _PASSWORD.encode(), stretch=True)
    assert key_tag("g", key) == _secure().tag
    assert key_tag("h", key) != _secure().tag


# ------------------------------------------------------------------------------ finding the key


@pytest.mark.parametrize("password", ["", "p4ss", "pa55w0r"])
def test_weak_passwords_are_for_loopback_only(password: str) -> None:
    secure("g", password=password, loopback_only=True, environ={})
    with pytest.raises(BadKey, match="shorter than 8 characters") as caught:
        secure("g", password=password, loopback_only=False, environ={})
    assert "grid key --new FILE" in str(caught.value)
    assert not password or password not in str(caught.value)


def test_arguments_come_before_the_environment(tmp_path: Path) -> None:
    path = new_key_file(tmp_path / "key")
    environ = {"GRID_PASSWORD": "from the environment"}
    by_argument = find_key(password=b"argument", loopback_only=False, environ=environ)
    assert by_argument.secret == b"argument"
    by_file = find_key(key_file=path, loopback_only=False, environ=environ)
    assert by_file.source == f"key file {path}"
    by_environ = find_key(loopback_only=False, environ=environ)
    assert (by_environ.source, by_environ.secret) == ("GRID_PASSWORD", b"from the environment")
    file_by_environ = find_key(loopback_only=False, environ={"GRID_KEY_FILE": str(path)})
    assert file_by_environ == by_file
    assert not file_by_environ.automatic


def test_two_keys_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(BadKey, match="both password and key_file"):
        find_key(password="x", key_file=tmp_path / "k", loopback_only=True, environ={})
    environ = {"GRID_PASSWORD": "x", "GRID_KEY_FILE": "y"}
    with pytest.raises(BadKey, match="both GRID_PASSWORD and GRID_KEY_FILE"):
        find_key(loopback_only=True, environ=environ)


def test_the_users_own_key_is_made_once_and_private(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "GRID_PASSWORD": ""}
    first = find_key(loopback_only=True, environ=environ)
    assert first.automatic
    assert first.path == own_key_path(environ) == tmp_path / "config/peergrid/key"
    assert first.path.stat().st_mode & 0o777 == 0o600
    assert first.path.parent.stat().st_mode & 0o777 == 0o700
    assert find_key(loopback_only=True, environ=environ) == first
    assert [entry.name for entry in first.path.parent.iterdir()] == ["key"]
    assert first.reveal() == first.path.read_text().strip()


def test_the_users_own_key_is_never_made_for_other_hosts(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    with pytest.raises(BadKey, match="grid key --new FILE"):
        find_key(loopback_only=False, environ=environ)
    assert list(tmp_path.iterdir()) == []


def test_many_processes_at_once_agree_on_one_key(tmp_path: Path) -> None:
    script = (
        "import sys; from peers.keys import find_key; sys.stdin.read()\n"
        "print(find_key(loopback_only=True).secret.hex())"
    )
    environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    environ.pop("GRID_PASSWORD", None)
    environ.pop("GRID_KEY_FILE", None)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environ,
            text=True,
        )
        for _ in range(6)
    ]
    for process in started:  # all are let go together, when all wait or soon will
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    keys = {process.communicate(timeout=60)[0].strip() for process in started}
    assert [process.returncode for process in started] == [0] * 6
    assert len(keys) == 1
    assert len(keys.pop()) == 64


def test_a_new_key_file_never_replaces_another(tmp_path: Path) -> None:
    path = new_key_file(tmp_path / "key")
    before = path.read_bytes()
    with pytest.raises(BadKey, match="left as it is"):
        new_key_file(path)
    assert path.read_bytes() == before
    assert read_key_file(path) != read_key_file(new_key_file(tmp_path / "other"))


def test_key_files_that_cannot_be_trusted(tmp_path: Path) -> None:
    path = new_key_file(tmp_path / "key")
    for mode in (0o644, 0o620, 0o602):
        path.chmod(mode)
        with pytest.raises(BadKey, match="chmod 600"):
            read_key_file(path)
    path.chmod(0o640)
    read_key_file(path)  # a mounted secret, say, is readable by its group
    with pytest.raises(BadKey, match="chmod 600"):
        read_key_file(path, private=True)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(BadKey, match="cannot read"):
        read_key_file(link, private=True)


def test_what_is_no_key_file_is_said_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("my secret password\n")
    path.chmod(0o600)
    with pytest.raises(BadKey, match="not a key file") as caught:
        read_key_file(path)
    assert "secret" not in str(caught.value)
    with pytest.raises(BadKey, match="No such file"):
        read_key_file(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(BadKey, match="not a regular file"):
        read_key_file(tmp_path / "pipe")


def test_a_password_is_not_revealed() -> None:
    with pytest.raises(BadKey, match="not shown"):
        find_key(password=_PASSWORD, loopback_only=True, environ={}).reveal()


def test_where_no_key_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "file")}
    with pytest.raises(BadKey, match="cannot make the key file"):
        find_key(loopback_only=True, environ=environ)
