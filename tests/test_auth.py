"""Basic authentication: the right password and nothing else, from a file that is checked at the start."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from exporter.http import auth as auth_module
from exporter.http.auth import AuthError, BasicAuth, hash_password


@pytest.fixture(name="cheap", autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth_module, "SCRYPT_N", 16)


def header(credentials: str, scheme: str = "Basic") -> str:
    """An Authorization header's value."""
    return f"{scheme} {base64.b64encode(credentials.encode()).decode()}"


def test_right_password_only(tmp_path: Path) -> None:
    """Users of the file with their own password are accepted, again and again; everybody else is not."""
    file = tmp_path / "auth"
    file.write_text(f"# who may look\n\nada:{hash_password('s:cret ö')}\nbob:{hash_password('')}\n")
    auth = BasicAuth.load(file)
    for _ in range(2):
        assert auth.accepts(header("ada:s:cret ö"))
        assert auth.accepts(header("bob:", "bAsIc"))
        for wrong in (
            header("ada:s:cret"),
            header("ada:"),
            header("bob:s:cret ö"),
            header("eve:s:cret ö"),
            header("ada"),
            header(""),
            header("ada:s:cret ö", "Bearer"),
            "Basic",
            "Basic !!!",
            "Basic /////w==",
            "",
        ):
            assert not auth.accepts(wrong)


def test_accepted_password_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials cost one hash, right or wrong, however often they come and whoever comes between."""
    file = tmp_path / "auth"
    file.write_text(f"ada:{hash_password('secret')}\nbob:{hash_password('other')}")
    auth = BasicAuth.load(file)
    hashed: list[str] = []
    derive = auth_module._derive

    def counted(password: str, salt: bytes, n: int, r: int, p: int, size: int) -> bytes:
        hashed.append(password)
        return derive(password, salt, n, r, p, size)

    monkeypatch.setattr(auth_module, "_derive", counted)
    assert auth.remembered(header("ada:secret")) is None
    for _ in range(3):
        assert [
            auth.accepts(header(each)) for each in ("ada:secret", "bob:other", "ada:wrong", "eve:secret")
        ] == [True, True, False, False]

    assert hashed == ["secret", "other", "wrong", "secret"]
    assert auth.remembered(header("ada:secret"))
    assert auth.remembered(header("ada:wrong")) is False


def test_unknown_names_cost_what_known_ones_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses for names that do not exist have the costs of the file's hashes, the same for a name each time."""
    file = tmp_path / "auth"
    cheap = hash_password("secret")
    monkeypatch.setattr(auth_module, "SCRYPT_N", 64)
    file.write_text(f"ada:{cheap}\nbob:{hash_password('other')}")
    auth = BasicAuth.load(file)
    costs: list[int] = []
    derive = auth_module._derive

    def counted(password: str, salt: bytes, n: int, r: int, p: int, size: int) -> bytes:
        costs.append(n)
        return derive(password, salt, n, r, p, size)

    monkeypatch.setattr(auth_module, "_derive", counted)
    of_names: dict[str, set[int]] = {}
    for guess in range(3):
        for name in (f"nobody{n}" for n in range(40)):
            auth.accepts(header(f"{name}:{guess}"))
            of_names.setdefault(name, set()).add(costs[-1])

    assert all(len(of_name) == 1 for of_name in of_names.values())
    assert set.union(*of_names.values()) == {16, 64}


def test_remembered_guesses_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of wrong credentials the newest are remembered, and no more than so many."""
    monkeypatch.setattr(auth_module, "WRONG_REMEMBERED", 3)
    file = tmp_path / "auth"
    file.write_text(f"ada:{hash_password('secret')}")
    auth = BasicAuth.load(file)
    for guess in range(5):
        auth.accepts(header(f"ada:{guess}"))

    known = [auth.remembered(header(f"ada:{guess}")) for guess in range(5)]
    assert known == [None, None, False, False, False]


@pytest.mark.parametrize("text", ["\ufeffada:{}\r\n", "  ada:{}  \n", " # a note\nada:{}"])
def test_files_of_other_editors(tmp_path: Path, text: str) -> None:
    """A byte-order mark, ends of lines and spaces are not part of a name."""
    file = tmp_path / "auth"
    file.write_text(text.format(hash_password("secret")), encoding="utf-8", newline="")

    assert BasicAuth.load(file).accepts(header("ada:secret"))


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    """A file that would never end, or never begin, is refused at once."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, Path("/dev/zero")):
        with pytest.raises(AuthError, match=f"^cannot read {path}: "):
            BasicAuth.load(path)
    large = tmp_path / "large"
    large.write_text("# note\n" * 10_000)
    with pytest.raises(AuthError, match="larger than 64 KiB"):
        BasicAuth.load(large)


def test_hash_has_a_salt_of_its_own() -> None:
    """Equal passwords do not show as equal in the file."""
    assert hash_password("secret") != hash_password("secret")


@pytest.mark.parametrize(
    "line",
    [
        "ada",
        "ada:secret",
        "ada:scrypt$16$8$1$00$00",
        f"ada:pbkdf2$16$8$1$00${'00' * 32}",
        f"ada:scrypt$15$8$1$00${'00' * 32}",
        f"ada:scrypt$1$8$1$00${'00' * 32}",
        f"ada:scrypt$1073741824$8$1$00${'00' * 32}",
        f"ada:scrypt$16$8$99$00${'00' * 32}",
        f"ada:scrypt$16$8$1$0x${'00' * 32}",
        f"ada:scrypt$131072$1$1${'00' * 16}${'11' * 32}",
        f"ada:scrypt$131072$8$16${'00' * 16}${'11' * 32}",
        f"ada:scrypt$+16$8$1$00${'00' * 32}",
        f"ada:scrypt$1_6$8$1$00${'00' * 32}",
        f"ada:scrypt$16$8$1$ 00${'00' * 32}",
        f"ada:scrypt$16$8$1$${'00' * 32}",
        f":scrypt$16$8$1$00${'00' * 32}",
        f"a\u200bda:scrypt$16$8$1$00${'00' * 32}",
        f"a\x1b[31mda:scrypt$16$8$1$00${'00' * 32}",
    ],
)
def test_odd_lines_are_named(tmp_path: Path, line: str) -> None:
    """A line that is no hash, or one that would cost too much, is refused with its number, not its content."""
    file = tmp_path / "auth"
    file.write_text(f"# one\n{line}\n")
    with pytest.raises(AuthError) as raised:
        BasicAuth.load(file)

    assert str(raised.value) == (
        f"{file}:2 is not user:hash; make the hash with `wok-exporter hash-password`"
    )


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), (b"\xff", "not UTF-8"), (b"# none\n", "has no user")]
)
def test_unusable_file(tmp_path: Path, content: bytes | None, message: str) -> None:
    """A file that is missing, no text, or without a user is refused with its name and the remedy."""
    file = tmp_path / "auth"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(AuthError, match=message):
        BasicAuth.load(file)
