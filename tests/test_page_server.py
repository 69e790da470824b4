"""The page and the API as they are served: headers, validators, Host, and what is not to be had."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.http.auth import BasicAuth, hash_password
from exporter.http.host_check import HostCheck
from exporter.http.routes import Request, Response, healthz_handler
from exporter.store.writer import Store
from exporter.web.page import CONTENT_TYPES, page_routes
from exporter.web.runbooks import runbook_routes
from tests.served import Answer, ask, served

RUNBOOKS = Path(__file__).parents[1] / "docs" / "runbooks"
PAGE = {
    "index.html": "<!doctype html><title>é</title>" + "<p>x</p>" * 100,
    "style.css": "p { color: red }" * 100,
    "app.js": "export {};\n" * 100,
    "icon.svg": "<svg/>",
    "notes.txt": "not of the page",
    "secret.py": "not of the page",
    "noextension": "not of the page",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@pytest.fixture(name="state")
def _state(tmp_path: Path) -> Path:
    Store(tmp_path / "state").close()
    return tmp_path / "state"


@pytest.fixture(name="page")
def _page(tmp_path: Path) -> Path:
    directory = tmp_path / "static"
    (directory / "folder.js").mkdir(parents=True)
    for name, text in PAGE.items():
        (directory / name).write_text(text, "utf-8")
    return directory


@pytest.fixture(name="url")
def _url(state: Path, page: Path) -> Iterator[str]:
    with served(state, page=page, more={"/healthz": healthz_handler(), "/fail": fail}) as url:
        yield url


def fail(_: Request) -> Response:
    """A page with a bug."""
    raise RuntimeError("a bug")


def shown(answer: Answer, *names: str) -> dict[str, str | None]:
    """Some headers of an answer."""
    return {name: answer.headers[name] for name in names}


# --- what every answer has


@pytest.mark.parametrize(
    ("method", "path", "host", "status"),
    [
        ("GET", "/", "localhost", 200),
        ("HEAD", "/", "localhost", 200),
        ("GET", "/app.js", "localhost", 200),
        ("GET", "/api/status", "localhost", 200),
        ("GET", "/healthz", "localhost", 200),
        ("GET", "/api/tasks?limit=x", "localhost", 400),
        ("GET", "/api/nothing", "localhost", 404),
        ("GET", "/nothing", "localhost", 404),
        ("POST", "/api/tasks", "localhost", 405),
        ("OPTIONS", "/", "localhost", 405),
        ("GET", "/", "evil.example", 421),
        ("GET", "/api/tasks", "evil.example", 421),
        ("GET", "/fail", "localhost", 500),
    ],
)
def test_every_answer_is_locked_down(url: str, method: str, path: str, host: str, status: int) -> None:
    """Answers and errors alike carry the policy, are not sniffed, framed or referred to, and allow no other site."""
    answer = ask(url, path, method, Host=host, Origin="http://evil.example")

    assert answer.status == status
    assert shown(
        answer,
        "Content-Security-Policy",
        "X-Content-Type-Options",
        "Referrer-Policy",
        "Cross-Origin-Resource-Policy",
        "Connection",
    ) == {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Connection": "close",
    }
    assert [name for name in answer.headers if name.lower().startswith("access-control-")] == []
    assert len(answer.headers.keys()) == len(set(answer.headers.keys()))


def test_refusals_of_the_server_itself_are_locked_down(state: Path, page: Path) -> None:
    """Without a password, and when there are too many clients, the same headers come."""
    auth = BasicAuth.load(with_password(state))
    with served(state, page=page, auth=auth) as url:
        unauthorized = ask(url, "/api/tasks")
    with served(state, page=page, threads_max=0) as url:
        busy = ask(url, "/")

    assert (unauthorized.status, busy.status) == (401, 503)
    assert {POLICY} == {answer.headers["Content-Security-Policy"] for answer in (unauthorized, busy)}


def with_password(directory: Path) -> Path:
    """A file with one user."""
    file = directory / "users"
    file.write_text(f"ada:{hash_password('x')}\n", "utf-8")
    return file


def test_answers_of_the_api_are_not_kept(url: str) -> None:
    """The API's answers are JSON, and no cache may keep them."""
    for path, status in (("/api/", 200), ("/api/tasks", 200), ("/api/tasks?x=1", 400), ("/api/x", 404)):
        answer = ask(url, path)

        assert answer.status == status
        assert shown(answer, "Content-Type", "Cache-Control") == {
            "Content-Type": "application/json; charset=utf-8",
            "Cache-Control": "no-store",
        }
        assert isinstance(answer.json, dict)


def test_head_is_get_without_the_body(url: str) -> None:
    """HEAD tells the length and nothing else, of the page and of the API."""
    for path in ("/", "/api/"):
        whole, head = ask(url, path), ask(url, path, "HEAD")

        assert (head.status, head.body) == (200, b"")
        assert head.headers.items() == whole.headers.items()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(url: str, method: str) -> None:
    """Other methods than GET and HEAD are answered with 405, wherever they go."""
    for path in ("/", "/api/tasks"):
        answer = ask(url, path, method)

        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


# --- the page


def test_files_of_the_page(url: str) -> None:
    """Each file comes with its type, and the page itself at `/`."""
    names = {"/": "index.html", "/style.css": "style.css", "/app.js": "app.js", "/icon.svg": "icon.svg"}
    for path, name in names.items():
        answer = ask(url, path)

        assert (answer.status, answer.body.decode()) == (200, PAGE[name])
        assert shown(answer, "Content-Type", "Cache-Control", "Vary", "Content-Encoding") == {
            "Content-Type": CONTENT_TYPES[Path(name).suffix],
            "Cache-Control": "no-cache",
            "Vary": "Accept-Encoding",
            "Content-Encoding": None,
        }


@pytest.mark.parametrize(
    "path",
    [
        "/index.html",
        "/notes.txt",
        "/secret.py",
        "/noextension",
        "/folder.js",
        "/static/app.js",
        "/../static/app.js",
        "/%2e%2e/app.js",
        "/app.js/",
        "/app.js%00",
        "/*",
        "/api",
    ],
)
def test_nothing_else_is_served(url: str, path: str) -> None:
    """Only the files of the page have paths, each one."""
    assert (ask(url, path).status, ask(url, path).body) == (404, b"not found\n")


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5, br", True),
        ("gzip;q=1.0", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("br, gzip; q=0.000", False),
        ("xgzip", False),
    ],
)
def test_compression(url: str, accepted: str, is_compressed: bool) -> None:
    """What takes gzip gets it, with a validator of its own; the text is the same."""
    answer, plain = ask(url, "/app.js", Accept_Encoding=accepted), ask(url, "/app.js")

    assert answer.headers["Content-Encoding"] == ("gzip" if is_compressed else None)
    assert (gzip.decompress(answer.body) if is_compressed else answer.body) == plain.body
    assert (answer.headers["ETag"] != plain.headers["ETag"]) is is_compressed


def test_small_files_are_not_compressed(url: str) -> None:
    """Where gzip makes a file longer it is left as it is."""
    assert ask(url, "/icon.svg", Accept_Encoding="gzip").body == b"<svg/>"


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_known_file_is_not_sent_again(url: str, encoding: str) -> None:
    """Who has the file is told so in an answer without a body and without headers of one."""
    etag = ask(url, "/app.js", Accept_Encoding=encoding).headers["ETag"]
    for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = ask(url, "/app.js", Accept_Encoding=encoding, If_None_Match=known)

        assert (answer.status, answer.body) == (304, b"")
        assert shown(answer, "ETag", "Cache-Control", "Vary", "Content-Length", "Content-Encoding") == {
            "ETag": etag,
            "Cache-Control": "no-cache",
            "Vary": "Accept-Encoding",
            "Content-Length": None,
            "Content-Encoding": None,
        }
    for other in ('"x"', etag.strip('"'), ""):
        assert ask(url, "/app.js", Accept_Encoding=encoding, If_None_Match=other).status == 200


def test_a_file_that_has_changed_has_another_validator(page: Path) -> None:
    """A new release is seen at once: the validator is of what is in the file."""
    request = Request("GET", "/app.js", {}, {})
    before = page_routes(page)["/app.js"](request)
    (page / "app.js").write_text("export default 1;\n", "utf-8")
    after = page_routes(page)["/app.js"](request)

    assert before.headers["ETag"] != after.headers["ETag"]


def test_a_package_without_its_page(tmp_path: Path) -> None:
    """A page that was not installed is an error of the start, and says so."""
    with pytest.raises(FileNotFoundError, match=r"has no index\.html: the package is incomplete"):
        page_routes(tmp_path)


def test_the_page_of_the_package_is_served(state: Path) -> None:
    """The package has its page, and every file in its folder is one that is served."""
    with served(state) as url:
        answer = ask(url, "/")

    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    folder = Path(__file__).parents[1] / "exporter" / "web" / "static"
    assert {f"/{file.name}" for file in folder.iterdir() if file.name != "index.html"} == set(
        page_routes()
    ) - {"/"}


# --- Host

LOOPBACK = [
    "localhost",
    "LOCALHOST:9101",
    "localhost.",
    "127.0.0.1",
    "127.0.0.1:9101",
    "127.9.8.7",
    "[::1]",
    "[::1]:1",
]
STRANGE = [
    "",
    "evil.example",
    "evil.example:80",
    "localhost.evil.example",
    "evil.example#localhost",
    "localhost@evil.example",
    "evil.example, localhost",
    "localhost:80:80",
    "localhost:x",
    "127.0.0.1.evil.example",
    "0.0.0.0",
    "[::]",
    "[::1",
    "::1",
    "2130706433",
    "127.1",
    "[127.0.0.1]x",
    "192.0.2.1",
    "[::ffff:192.0.2.1]",
    "lo\u0441alhost",
    "localhost\\",
    "l" * 400,
]


@pytest.mark.parametrize("host", LOOPBACK)
@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0", "::", "", "192.0.2.9", "kvm01.example"])
def test_loopback_always_means_this_server(listen: str, host: str) -> None:
    """Wherever the server listens, localhost and the loopback addresses are names of it."""
    assert HostCheck(listen).allows(host)


@pytest.mark.parametrize("host", STRANGE)
@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0", "::", "", "192.0.2.9", "kvm01.example"])
def test_other_names_are_refused(listen: str, host: str) -> None:
    """A name that nobody has said is this server's may be a rebound one; it is not answered to."""
    assert not HostCheck(listen, ["kvm01"]).allows(host)


def test_names_that_were_given() -> None:
    """The address of `listen` and the further names count, in any case and spelling, with any port."""
    hosts = HostCheck("2001:DB8::9", ["KVM01.example", "wok.example.", "192.0.2.1", "[2001:db8::7]"])
    given = ["[2001:db8:0:0::9]:443", "kvm01.EXAMPLE:8001", "wok.example", "192.0.2.1:1", "[2001:db8::7]"]

    assert [host for host in given if not hosts.allows(host)] == []
    assert HostCheck("kvm01.example").allows("kvm01.example:9101")


def test_any_name_where_a_password_is_asked_for() -> None:
    """A server for the network answers to all its names, if it asks for a password; one that listens on one address does not."""
    for listen in ("0.0.0.0", "::", ""):
        assert HostCheck(listen, has_auth=True).allows("kvm01.example")
    assert not HostCheck("192.0.2.9", has_auth=True).allows("kvm01.example")


def test_another_sites_name_is_told_what_to_do(url: str) -> None:
    """Page and API answer 421 with the remedy, in ASCII; the probe is not asked by browsers, and answers."""
    for path in ("/", "/app.js", "/api/tasks"):
        answer = ask(url, path, Host="ev\u00efl.example:80")

        assert answer.status == 421
        assert answer.json == {
            "error": "Host: 'ev\\xefl.example:80' is not a name of this server; use localhost, or add the name to"
            " `hosts`"
        }
    assert ask(url, "/healthz", Host="evil.example").status == 200


def test_answers_are_compressed_for_who_accepts_it(url: str) -> None:
    """The API answers in gzip where the client accepts it and the answer is large, and says that it depends."""
    plain = ask(url, "/api/")
    packed = ask(url, "/api/", Accept_Encoding="br, gzip")

    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert {plain.headers["Vary"], packed.headers["Vary"]} == {"Accept-Encoding"}
    assert "Content-Encoding" not in ask(url, "/api/", Accept_Encoding="gzip;q=0").headers
    assert "Content-Encoding" not in ask(url, "/api/nothing", Accept_Encoding="gzip").headers


# --- the runbooks


def test_each_alert_links_to_a_runbook_that_is_served(url: str) -> None:
    """Every runbook is served as text under the name that alerts link to, and listed."""
    names = sorted(path.name for path in RUNBOOKS.iterdir())
    answers = {name: ask(url, f"/runbooks/{name}") for name in names}

    assert {name: answer.body for name, answer in answers.items()} == {
        name: (RUNBOOKS / name).read_bytes() for name in names
    }
    assert {answer.headers["Content-Type"] for answer in answers.values()} == {"text/plain; charset=utf-8"}
    assert ask(url, "/runbooks/").body.decode().split() == names


def test_only_runbooks_of_a_directory_are_served(tmp_path: Path) -> None:
    """Of a directory, the Markdown files are served, and nothing else."""
    (tmp_path / "WokLost.md").write_text("# WokLost\n")
    (tmp_path / "other.py").write_text("no runbook")

    assert runbook_routes(tmp_path).keys() == {"/runbooks/WokLost.md", "/runbooks/"}


def test_a_runbook_is_opened_from_a_mail_but_not_by_a_page(url: str) -> None:
    """A link of another site leads to a runbook; a page of another site cannot load one."""
    foreign = {"Sec_Fetch_Site": "cross-site"}
    followed = {**foreign, "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    path = "/runbooks/WokTaskFailed.md"

    assert ask(url, path, **followed).status == 200
    assert ask(url, path, **foreign).status == 403
