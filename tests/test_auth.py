"""Basic authentication: the right password and nothing else, from a file that is checked at the start."""

from __future__ import annotations

import base64
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
    """A scrape every few seconds costs one hash in all; a wrong password costs one each time."""
    file = tmp_path / "auth"
    file.write_text(f"ada:{hash_password('secret')}")
    auth = BasicAuth.load(file)
    hashed: list[str] = []
    derive = auth_module._derive

    def counted(password: str, salt: bytes, n: int, r: int, p: int, size: int) -> bytes:
        hashed.append(password)
        return derive(password, salt, n, r, p, size)

    monkeypatch.setattr(auth_module, "_derive", counted)
    for password in ("secret", "secret", "wrong", "wrong", "secret"):
        auth.accepts(header(f"ada:{password}"))
    auth.accepts(header("eve:secret"))

    assert hashed == ["secret", "wrong", "wrong", "secret"]


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
    ("content", "message"), [(None, "No such file"), (b"\xff", "not UTF-8"), (b"# none\n", "names no user")]
)
def test_unusable_file(tmp_path: Path, content: bytes | None, message: str) -> None:
    """A file that is missing, no text, or without a user is refused with its name and the remedy."""
    file = tmp_path / "auth"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(AuthError, match=message):
        BasicAuth.load(file)
