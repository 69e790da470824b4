"""Redaction: by key, in texts with any quoting, in URLs, in excerpts."""

from __future__ import annotations

import json
import pprint
import re
import unicodedata
from collections.abc import Callable
from time import process_time
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.parse.redact import (
    MAX_DEPTH,
    REDACTED,
    is_secret,
    may_hold_secret,
    redact_text,
    redact_value,
    safe_excerpt,
)

CANARY = "cAnArY"
# What a password may be made of; the canary is at both ends, so that no part of it may stay.
passwords = st.text(st.characters(codec="utf-8"), max_size=12).map(lambda middle: f"{CANARY}{middle}{CANARY}")
secret_keys = st.sampled_from(
    ["password", "passwd", "newPasswd", "PASSWORD", "pass", "user_pass", "passphrase", "client-secret", "token",
     "accessToken", "auth", "credentials", "apiKey", "api_key", "APIKEY", "authorization", "pwd", "private_key"]
)  # fmt: skip
plain_keys = st.sampled_from(
    ["username", "user", "name", "type", "host", "ident", "monkey", "passed", "author"]
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_keys | secret_keys, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "key",
    ["password", "passwd", "pass", "passphrase", "pass_phrase", "secret", "token", "auth", "credentials", "apikey",
     "api_key", "API-Key", "passwdValidTo", "graphicsPasswd", "newpassword", "PASSWORD", "X-Auth-Token", "clientSecret",
     "authorization", "pwd", "userpwd", "privateKey", "secrets", "password2", "oauth"],
)  # fmt: skip
def test_secret_keys(key: str) -> None:
    """A key is a secret by its words, however they are joined."""
    assert is_secret(key)


@pytest.mark.parametrize(
    "key",
    ["username", "user", "name", "ident", "author", "passed", "bypass", "compass_word", "passthrough", "keyboard",
     "public_key", "WOKAUTH0001E", "authentic", "", "tokenizer", "monkey", "pass2through".replace("2", "")],
)  # fmt: skip
def test_plain_keys(key: str) -> None:
    """The value of a key that only looks similar is kept."""
    assert not is_secret(key)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{u'passwd': u'x', u'type': u'vnc'}", "{u'passwd': u'[redacted]', u'type': u'vnc'}"),
        (r"{u'passwd': u'x\'y', u'type': u'vnc'}", "{u'passwd': u'[redacted]', u'type': u'vnc'}"),
        ("""{'passwd': "it's", 'type': 'vnc'}""", """{'passwd': "[redacted]", 'type': 'vnc'}"""),
        ("{u'a': {u'auth': {u'password': u'p', u'username': u'u'}}, u'b': 1}", "{u'a': {u'auth': [redacted]}, u'b': 1}"),
        ("{'token': None, 'x': 1}", "{'token': [redacted], 'x': 1}"),
        ("[('password', 'x'), ('a', 1)]", "[('password', '[redacted]'), ('a', 1)]"),
        ('{"passwd": "x\\"y", "a": 1}', '{"passwd": "[redacted]", "a": 1}'),
        (r'{\"passwd\": \"x\\\"y\", \"a\": 1}', r'{\"passwd\": \"[redacted]\", \"a\": 1}'),
        ("'password': 'aaa '\n    'bbb', 'c': 1", "'password': '[redacted]', 'c': 1"),
        ("password=hun,ter;2 next", "password=[redacted] next"),
        ("?token=abc", "?token=[redacted]"),
        ("Password: hunter2.", "Password: [redacted]"),
        ("mount --password foo /mnt", "mount --password [redacted] /mnt"),
        ("Authorization: Basic dTpw==\nok", "Authorization: [redacted]\nok"),
        ("auth: Bearer abc.def x", "auth: [redacted] x"),
        ("<passwd>abc</passwd>", "<passwd>[redacted]</passwd>"),
        ("<graphics passwd='abc' port='1'/>", "<graphics passwd='[redacted]' port='1'/>"),
        ("http://user:pw@host/x", "http://[redacted]@host/x"),
        ("http://user:p/w#?@w@host/x", "http://[redacted]@host/x"),
        ("https://ghp_token@host", "https://[redacted]@host"),
        ("//user:pw@host/x", "//[redacted]@host/x"),
        ("mount '//user:p@w'd:1@host/x'", "mount '//[redacted]@host/x'"),
        ("http:/user:pw@host/x", "http:/[redacted]@host/x"),
        (r"(\/\/user:pw@[fe80::1]\/x)", r"(\/\/[redacted]@[fe80::1]\/x)"),
        (r"http:\/user:pw@host", r"http:\/[redacted]@host"),
        ("///user:pw@host", "///[redacted]@host"),
        ("http//user:pw@host", "http//[redacted]@host"),
        ("//user:p/w@host.example/x", "//[redacted]@host.example/x"),
        ("http:/user:p/w:@host", "http:/[redacted]@host"),
        ("//user:pw@host http://a:b@host", "//[redacted]@host http://[redacted]@host"),
        ("Invalid {u'passwd': u'never closed", "Invalid {u'passwd': u'[redacted]"),
        (
            ("'x' is bad\n\nFailed validating 'type' in schema['vm_migrate']\n\n" "On instance['vm_migrate']: {'password': 'LeakedPW!'}"),
            ("'x' is bad\n\nFailed validating 'type' in schema['vm_migrate']\n\n" "On instance['vm_migrate']: {'password': '[redacted]'}"),
        ),
        (
            ("'hunter2' is too short\n\nFailed validating 'minLength' in schema:\n    {'minLength': 8}\n\n" "On instance['graphics']['passwd']:\n    'hunter2'"),
            ("[redacted]\n\nFailed validating 'minLength' in schema:\n    {'minLength': 8}\n\n" "On instance['graphics']['passwd']:\n[redacted]"),
        ),
    ],
)  # fmt: skip
def test_texts(text: str, expected: str) -> None:
    """The value after a secret's name is replaced, and nothing but the value."""
    assert expected == redact_text(text)


@pytest.mark.parametrize(
    "text",
    ["Clone guest 'token-server'", "/plugins/kimchi/vms/token-server/clone", "/etc/passwd~140", "User 'auth' logged in",
     "{u'username': u'root', u'type': u'iscsi'}", "http://host:8080/a@b", "WOKAUTH0001E: Authentication failed",
     "The password is wrong", "bypass: yes", "ssh-keygen root@host", "", "nfs01:/export/a@b", "kvm:/a:b", "C:/a b:c@d",
     "/a//b:c@d", "//host:80/a@b", "a // b:c@d", "//ada@host/x", "10:/20: mail to ada@host"],
)  # fmt: skip
def test_kept_texts(text: str) -> None:
    """The word for a secret is not redacted, nor is a guest with such a name."""
    assert text == redact_text(text)


def test_values() -> None:
    """Keys are followed to any depth, through lists, and into strings; what is
    too deep is cut off.
    """
    deep: Any = "bottom"
    for _ in range(MAX_DEPTH + 5):
        deep = [deep]
    value = {
        "name": "token-server",
        "graphics": {"type": "vnc", "passwd": "x", "passwdValidTo": "2026"},
        "sources": [{"auth": {"username": "u"}}, {"url": "nfs://a:b@c/d"}],
        "repr": "{u'passwd': u'x'}",
        "http://u:p@h": [1, 2.5, None, True],
        "deep": deep,
    }
    cut: Any = "[too deep]"
    for _ in range(MAX_DEPTH - 1):
        cut = [cut]

    assert redact_value(value) == {
        "name": "token-server",
        "graphics": {"type": "vnc", "passwd": REDACTED, "passwdValidTo": REDACTED},
        "sources": [{"auth": REDACTED}, {"url": "nfs://[redacted]@c/d"}],
        "repr": "{u'passwd': u'[redacted]'}",
        "http://[redacted]@h": [1, 2.5, None, True],
        "deep": cut,
    }


@given(secret_keys, passwords, plain_keys)
@example("passwd", CANARY + "\\" + CANARY, "name")
@example("passwd", CANARY + "'" + CANARY, "name")
@example("passwd", CANARY + "'\"" + CANARY, "name")
@example("passwd", CANARY + "\\'" + CANARY + "\\", "name")
def test_no_quoting_hides_a_secret(key: str, password: str, other: str) -> None:
    """A secret in a repr, in JSON, in JSON in JSON, in a repr in JSON, or pretty-printed never
    stays.
    """
    value = {other: "before", "inner": [{key: password, other: "after"}], "last": 1}
    forms = [
        repr(value),
        json.dumps(value),
        json.dumps(json.dumps(value)),
        json.dumps(repr(value)),
        repr(repr(value)),
    ]
    forms += [
        json.dumps({"p": json.dumps({"q": repr(value)})}),
        pprint.pformat(value, width=20),
        f"Error: {value!r}.",
    ]

    assert [form for form in forms if CANARY in redact_text(form)] == []
    assert CANARY not in repr(redact_value(value))


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.text(st.characters(codec="utf-8"), max_size=20))
def test_no_url_keeps_credentials(user: str, password: str) -> None:
    """Credentials in a URL never stay, escaped as urllib escapes them."""
    text = f"cannot open http://{quote(user, '')}:{CANARY}{quote(password, '')}@host/path, giving up"

    assert redact_text(text) == "cannot open http://[redacted]@host/path, giving up"


@given(values)
def test_idempotent(value: Any) -> None:
    """Redacting twice gives the same result as redacting once."""
    once = redact_value(value)
    text = redact_text(repr(value))

    assert repr(once) == repr(redact_value(once))
    assert text == redact_text(text)


PIECES = ["sshpass", "curl", "mysql", "password", "token", "--value", "-p", "-u", "=", ":", "://", "//", "@", " ", "'", '"', "\\",
          "{", "}", "[", "]", "(", ",", "%3a%2f%2f", "x", "host", "[redacted]", "\n", "On instance['passwd']: ", "<passwd>", "Basic "]  # fmt: skip


@example(["sshpass password=-psshpass -ppassword"])
@example(["://password:// @"])
@example(["sshpass password=-p"] * 12)
@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_a_second_redaction_changes_nothing(pieces: list[str]) -> None:
    """Of any mixture of what the rules look at, with the marks of earlier redactions."""
    once = redact_text("".join(pieces))

    assert redact_text(once) == once


@given(st.text(max_size=300) | st.text("pasword:=\"'\\{}[]@/ \n", max_size=300))
def test_fast_test_is_safe(text: str) -> None:
    """If the fast test finds nothing, redaction does not change the line."""
    line = json.dumps({"key": text, "k": {text: [text]}})

    assert may_hold_secret(line) or redact_value(json.loads(line)) == json.loads(line)


@pytest.mark.parametrize("text", ["p\\u0061ssword", "\\u003a//u:p@h", "PassWD", "API_KEY"])
def test_fast_test_sees(text: str) -> None:
    """Neither case nor JSON escapes hide a word from the fast test."""
    assert may_hold_secret('{"' + text + '": 1}')


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"hello", "hello"),
        (b"\x1b[31mred\x07\x00\x9b", "\ufffd[31mred\ufffd\ufffd\ufffd"),
        ("a\u202eb\u2028c\u200bd\ufefféß日".encode(), "a\ufffdb\ufffdc\ufffdd\ufffdéß日"),
        (b'{"graphics": {"passwd": "LeakedPW', '{"graphics": {"passwd": "[redacted]'),
        (b'{"graphics": {"p\\u0061sswd": "LeakedPW"', '{"graphics": {"passwd": "[redacted]"'),
        (
            b"{\"graphics\": \"{u'passwd': u'a\\\\'LeakedPW', u'b",
            "{\"graphics\": \"{u'passwd': u'[redacted]', u'b",
        ),
        (b"get http://user:LeakedPW", "get http://[redacted]"),
        (b"x" * 500, "x" * 199 + "\u2026"),
        (b"", ""),
    ],
)
def test_excerpts(data: bytes, expected: str) -> None:
    """An excerpt is short, redacted even where the line is torn, and harmless on a terminal."""
    assert expected == safe_excerpt(data)


@given(st.binary(max_size=400))
def test_any_excerpt(data: bytes) -> None:
    """Whatever the bytes, the excerpt is at most 200 printable characters."""
    excerpt = safe_excerpt(data)

    assert len(excerpt) <= 200
    assert not {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} & {unicodedata.category(char) for char in excerpt}


def test_an_escaped_slash_does_not_hide_a_url() -> None:
    r"""JSON may write a slash as `\/`: a URL with credentials is looked for all the same."""
    assert may_hold_secret('"url": "http:\\/\\/ada:pw@host\\/x.iso"')


# `@host ` ends a URL: what a password has behind that looks like the next word of a sentence.
SIGNS = "abcXYZ019-._~!$&'()*+,;=:%@/?#\"<> "
userinfos = st.builds(
    lambda user, middle: f"{user}:{CANARY}{middle}{CANARY}",
    st.text("abc-._~!$&'()*+,;=%", min_size=1, max_size=8),
    st.text(SIGNS, max_size=12).filter(lambda middle: re.search("@[^ ]+ |[ ].*@.* ", middle) is None)
    | st.sampled_from(["x" * 600, "/" * 600, "' " * 300]),
)
quotings = st.lists(
    st.sampled_from(
        [
            repr,
            json.dumps,
            lambda text: text.replace("/", "\\/"),
            lambda text: str({"url": text, "pool": "p"}),
            lambda text: f"cannot open '{text}': no such host",
            lambda text: f"{{'url': u'{text}'}}",
            lambda text: text.replace("/", "\\u002f").replace(":", "\\u003a"),
        ]
    ),
    max_size=3,
)


@given(userinfos, quotings)
@example("a:" + CANARY + "'" + CANARY, [])
@example("a:" + CANARY + "/" + CANARY, [json.dumps])
@example("a:" + "x" * 600 + CANARY, [])
@example("a:" + CANARY + "@#" + CANARY, [])
@example("a:" + CANARY + "@x/" + CANARY, [])
@example("a:" + CANARY, [lambda text: text.replace("/", "\\/")])
def test_no_userinfo_survives(userinfo: str, quoting: list[Callable[[str], str]]) -> None:
    """Whatever the user information is made of, and however its URL was quoted,
    none of it stays.
    """
    text = f"http://{userinfo}@mirror.example/f.iso"
    for form in quoting:
        text = form(text)

    assert CANARY not in redact_text(text)


@given(st.text("abc!$&'()*+,;=:%-._~", max_size=10), st.integers(1, 3))
def test_no_encoding_of_a_url_hides_credentials(middle: str, times: int) -> None:
    """A URL that is percent-encoded, as in the query of another one, is a URL."""
    text = f"http://ada:{CANARY}{middle}{CANARY}@mirror.example/f.iso"
    for _ in range(times):
        text = quote(text, "")

    assert CANARY not in redact_text(f"GET /get?url={text} failed")
    assert may_hold_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://" + CANARY * 60 + "@mirror.example/f.iso",
        f"https://to/{CANARY}@mirror.example/f.iso",
        f"http://[{CANARY}@h",
        f"http://h?u=http://ada:{CANARY}@h",
    ],
)
def test_tokens_in_urls(text: str) -> None:
    """A token without a user is a credential, however long, and with a slash in it."""
    assert CANARY not in redact_text(text)


@pytest.mark.parametrize(
    "text",
    ["http://h.example/x: mail root@h", "http://[::1]:8080/a@b", "http://h.example/@scope/name@1.2.3/x",
     "see http://localhost/a@b.example"],
)  # fmt: skip
def test_paths_with_an_at_sign_stay(text: str) -> None:
    """An `@` in a path, or in the text after a URL, does not mark a credential."""
    assert text == redact_text(text)


VALUE_OPTIONS = ["--value", "-v", "--val", "--new-value"]
argument_lists = st.tuples(
    st.sampled_from(["node.session.auth.password", "discovery.sendtargets.auth.password_in", "chap-secret"]),
    st.sampled_from(VALUE_OPTIONS),
    st.permutations(["name", "value", "op"]),
    st.booleans(),
    st.booleans(),
).map(
    lambda drawn: [
        "iscsiadm",
        *(
            argument
            for part in drawn[2]
            for argument in {
                "name": [f"--name={drawn[0]}"] if drawn[4] else ["--name", drawn[0]],
                "op": ["--op", "update"],
                "value": [f"{drawn[1]}={CANARY}"] if drawn[3] else [drawn[1], CANARY],
            }[part]
        ),
    ]
)


@given(argument_lists)
def test_a_secret_named_in_one_argument_and_given_in_another(arguments: list[str]) -> None:
    """Names and values stand in any order, in a list, its repr, its JSON, a command line, and each
    in a text.
    """
    forms: list[Any] = [
        repr(arguments),
        json.dumps(arguments),
        json.dumps(json.dumps(arguments)),
        " ".join(arguments),
        f"Command '{arguments!r}' returned 1",
        repr([f"u'{argument}'" for argument in arguments]),
        {"err": arguments},
    ]

    assert [form for form in forms if CANARY in repr(redact_value(form))] == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["--password", "x", "y"], ["--password", REDACTED, "y"]),
        (["--password=x", "y"], [f"--password={REDACTED}", "y"]),
        (["password", "x"], ["password", REDACTED]),
        (["password", "x", "y"], ["password", "x", "y"]),
        (["--value", "x"], ["--value", "x"]),
        ({"name": "a.password", "value": "x"}, {"name": "a.password", "value": REDACTED}),
        ({"name": "title", "value": "x"}, {"name": "title", "value": "x"}),
        ({"name": "The password is long", "value": "x"}, {"name": "The password is long", "value": "x"}),
        ("['--password', 'x', 'y']", "['--password', '[redacted]', 'y']"),
        ("{'name': 'a.password', 'value': 'x'}", "{'name': 'a.password', 'value': '[redacted]'}"),
        ("['--value', 'x']", "['--value', 'x']"),
        ("cfg['password'] = 'x'; y", "cfg['password'] = '[redacted]'; y"),
        ("http://my-pass:w@h.example, b", "http://[redacted]@h.example, b"),
        ("http://a:w@ x@h.example, b", "http://[redacted]@h.example, b"),
        ("http://a:w@# x", "http://[redacted]@# x"),
        ("http://a:w@s/x@h.example/b", "http://[redacted]@h.example/b"),
        ("http://a:w@h.example/x@y.example", "http://[redacted]@h.example/x@y.example"),
        (r"['--password', \"x\", 'y']", r"['--password', \"[redacted]\", 'y']"),
        ("[u'password', u'x']", "[u'password', u'[redacted]']"),
        ([f"--{'long-' * 40}password", "x"], [f"--{'long-' * 40}password", REDACTED]),
    ],
)
def test_values_beside_names(value: Any, expected: Any) -> None:
    """A value is redacted if the name beside it is that of a secret, and only then."""
    assert redact_value(value) == expected


@pytest.mark.parametrize("unit", ["://", "://a:b ", "://@", " //a:", ",//a:b", "a//b:c,", "a:/b:", "//a:b@", " \\/", "@", "\\", "\\n", "%3a%2f%2f", "%25", "password ", "--value ",
                                  "password='", "password=[(", "curl -u [", "On instance[a]", "'\""])  # fmt: skip
def test_time_is_linear(unit: str) -> None:
    """Eight times as much of anything takes about eight times as long, not sixty-four."""
    head = "://a password "
    small, large = (head + unit * (size // len(unit)) for size in (25_000, 200_000))
    redact_text(small)
    spent = []
    for text in (small, large):
        times = []
        for _ in range(3):
            begin = process_time()
            redact_text(text)
            times.append(process_time() - begin)
        spent.append(min(times))

    assert spent[1] < 24 * max(spent[0], 0.002)


def test_a_secret_that_poses_as_a_schema_error() -> None:
    """A password with the words of a schema error is not mistaken for the path to the value."""
    text = (
        repr({"passwd": f"{CANARY}On instance['passwd\f{CANARY}", "type": "vnc"}) + " ']:\n 'x' is too short"
    )

    assert CANARY not in redact_text(text)
    kept = "'x' is too short\n\nFailed validating 'minLength'\n\nOn instance['graphics']['passwd']:\n    'x'"
    assert "On instance['graphics']['passwd']:" in redact_text(kept)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sshpass -p S3 ssh -p 2222 root@h", f"sshpass -p {REDACTED} ssh -p 2222 root@h"),
        ("/usr/bin/sshpass -pS3 ssh h", f"/usr/bin/sshpass -p{REDACTED} ssh h"),
        ("sshpass -p 'S3 S3' ssh h", f"sshpass -p '{REDACTED}' ssh h"),
        ("sshpass -p'S3 S3' ssh h", f"sshpass -p'{REDACTED}' ssh h"),
        ("['sshpass', '-p', 'S3', 'ssh', 'h']", f"['sshpass', '-p', '{REDACTED}', 'ssh', 'h']"),
        ("[u'sshpass', u'-pS3', u'ssh']", f"[u'sshpass', u'-p{REDACTED}', u'ssh']"),
        ("curl -u a:S3 http://h/x", f"curl -u {REDACTED} http://h/x"),
        ("curl -sku a:S3 http://h/x", f"curl -sku {REDACTED} http://h/x"),
        ("curl -ua:S3 --proxy-user b:S3 h", f"curl -u{REDACTED} --proxy-user {REDACTED} h"),
        ("curl --user=a:S3 h", f"curl --user={REDACTED} h"),
        ("curl h?a=1&b=2 -U 'a:S3'", f"curl h?a=1&b=2 -U '{REDACTED}'"),
        ("mysqldump -uroot -pS3 db", f"mysqldump -uroot -p{REDACTED} db"),
        ("SSHPASS=S3 sshpass -e ssh h", f"SSHPASS={REDACTED} sshpass -e ssh h"),
        ("curl -u sshpass -u password", f"curl -u {REDACTED} -u {REDACTED}"),
        ("PGPASS=S3 psql", f"PGPASS={REDACTED} psql"),
        ("kickstart --rootpw=S3", f"kickstart --rootpw={REDACTED}"),
        ("rootpw: S3", f"rootpw: {REDACTED}"),
    ],
)
def test_secrets_given_to_programs(text: str, expected: str) -> None:
    """A secret in a command line goes, whatever its option is called, and the rest stays."""
    assert redact_text(text) == expected
    assert redact_text(expected) == expected
    assert may_hold_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "sshpass: command not found",
        "curl: (6) Could not resolve host: h",
        "curl -XPUT -o out.tar http://h/",
        "mysql -p db",
        "mysql-plugin -port 3",
        "libcurl-u: x",
        "compass: north, bypass=on, lowpass = 3",
        "sort -u names",
    ],
)
def test_commands_without_a_secret_stay(text: str) -> None:
    """Programs and words that only resemble the above keep their text."""
    assert redact_text(text) == text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["sshpass", "-p", "S3", "ssh", "-p", "22"], ["sshpass", "-p", REDACTED, "ssh", "-p", "22"]),
        (["/usr/bin/sshpass", "-pS3", "ssh"], ["/usr/bin/sshpass", f"-p{REDACTED}", "ssh"]),
        (["curl", "-su", "a:S3", "h"], ["curl", "-su", REDACTED, "h"]),
        (["mysql", "-p", "db"], ["mysql", "-p", "db"]),
    ],
)
def test_lists_of_arguments_of_programs(value: Any, expected: Any) -> None:
    """The same holds for decoded lists of arguments."""
    assert redact_value(value) == expected
