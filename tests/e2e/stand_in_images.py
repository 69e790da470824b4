"""Images under the names that compose.yaml has, made here, because no registry of images can be reached.

Each has the user, the program's place and the folders of the image it stands for, as far as its sources tell, and as little else: the
collector's has no shell, Jaeger's has busybox. The collector, Jaeger, Prometheus, Alertmanager and the exporter are the real programs. In
the places of Tempo and Loki a collector takes OTLP; in Grafana's place something answers that has the files in sight.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from tests import compose_files
from tests.e2e import tools
from tests.e2e.docker_engine import Engine
from tests.program import installed

LIBRARIES = [
    *Path("/lib64").glob("ld-linux*"),
    *(
        path
        for name in (
            "libc.so.6",
            "libm.so.6",
            "libdl.so.2",
            "libpthread.so.0",
            "librt.so.1",
            "libutil.so.1",
            "libresolv.so.2",
            "libz.so.1",
        )
        for path in Path("/lib").glob(f"*-linux-gnu/{name}")
    ),
]
SYSTEM = ["/bin/busybox", "/etc/passwd", *map(str, LIBRARIES)]
APPLETS = "sh wget chown touch ls cat httpd id mkdir test"
SHELL = "#!/bin/sh\nset -e\n"
RECEIVER = """\
receivers: {{otlp: {{protocols: {{http: {{endpoint: "0.0.0.0:{port}", {more}}}}}}}}}
exporters: {{debug: {{}}}}
extensions: {{health_check: {{endpoint: "127.0.0.1:13133"}}}}
service:
  extensions: [health_check]
  pipelines: {{{signal}: {{receivers: [otlp], exporters: [debug]}}}}
"""


@dataclass(slots=True)
class Image:
    """What goes into an image: files by their place, folders with their owner, and how it starts."""

    user: str
    entrypoint: str
    files: dict[str, bytes | Path] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()
    has_shell: bool = True

    def load(self, engine: Engine, name: str) -> None:
        """Give the image to an engine under a name."""
        changes = [f"USER {self.user}", f'ENTRYPOINT ["{self.entrypoint}"]', "ENV PATH=/bin:/usr/bin"]
        changes += [f"VOLUME {volume}" for volume in self.volumes]
        options = [word for change in changes for word in ("--change", change)]
        engine.run("docker", "import", *options, "-", name, given=self._tar())

    def _tar(self) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            places = [*self.files, *self.folders, *(SYSTEM if self.has_shell else ())]
            # an engine gives folders that are not named to nobody
            for folder in sorted({str(one) for place in places for one in Path(place).parents} - {"/", "."}):
                _add(tar, folder, tarfile.DIRTYPE)
            if self.has_shell:
                _add_system(tar)
            for place, owner in self.folders.items():
                _add(tar, place, tarfile.DIRTYPE, owner=owner)
            for place, content in self.files.items():
                if isinstance(content, Path):
                    tar.add(content.resolve(), place.strip("/"))
                else:
                    _add(tar, place, content=content)
        return buffer.getvalue()


def _add(
    tar: tarfile.TarFile, place: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", owner: int = 0
) -> None:
    entry = tarfile.TarInfo(place.strip("/"))
    entry.type, entry.mode, entry.size, entry.uid, entry.gid = kind, 0o755, len(content), owner, owner
    tar.addfile(entry, io.BytesIO(content))


def _add_system(tar: tarfile.TarFile) -> None:
    """Add a shell and what a dynamic program of this machine needs."""
    tar.add(tools.docker_engine().path / "bin/busybox", "bin/busybox")
    for name in APPLETS.split():
        entry = tarfile.TarInfo(f"bin/{name}")
        entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
        tar.addfile(entry)
    for library in LIBRARIES:
        tar.add(library.resolve(), str(library).strip("/"))
    _add(tar, "etc/passwd", content=b"nobody:x:65534:65534::/:/bin/sh\n")
    entry = tarfile.TarInfo("tmp")
    entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
    tar.addfile(entry)


def images(collector: Path, jaeger: Path, exporter: Path) -> dict[str, Image]:
    """Return an image for each service of compose.yaml; `exporter` are the files of its package."""
    otlp = {"/bin/otelcol": collector}
    start = "exec /bin/otelcol --config=/receiver.yaml\n"
    tempo = RECEIVER.format(port=4318, more="", signal="traces").encode()
    loki = RECEIVER.format(port=3100, more="logs_url_path: /otlp/v1/logs", signal="logs").encode()
    return {
        "otelcol": Image("10001:10001", "/otelcol-contrib", {"/otelcol-contrib": collector}, has_shell=False),
        "jaeger": Image(
            "10001", "/cmd/jaeger/jaeger-linux", {"/cmd/jaeger/jaeger-linux": jaeger}, volumes=("/tmp",)
        ),
        "tempo": Image(
            "10001:10001",
            "/tempo",
            {
                **otlp,
                "/receiver.yaml": tempo,
                "/tempo": f"{SHELL}test -s /etc/tempo/config.yaml\ntouch /var/tempo/written\n{start}".encode(),
            },
        ),
        "loki": Image(
            "10001",
            "/usr/bin/loki",
            {
                **otlp,
                "/receiver.yaml": loki,
                "/usr/bin/loki": (
                    f'{SHELL}if [ "$1" = -health ]; then exec wget -q -O /dev/null http://127.0.0.1:13133/; fi\n'
                    f"test -s /etc/loki/config.yaml\ntouch /loki/written\n{start}"
                ).encode(),
            },
        ),
        "prometheus": Image(
            "nobody",
            "/bin/prometheus",
            {f"/bin/{name}": Path(installed(name)) for name in ("prometheus", "promtool")},
            {"/prometheus": 65534, "/etc/prometheus": 65534},
            ("/prometheus",),
        ),
        "alertmanager": Image(
            "nobody",
            "/bin/alertmanager",
            {
                "/bin/alertmanager": Path(installed("prometheus-alertmanager")),
                "/bin/amtool": Path(installed("amtool")),
                # Debian's has its templates beside it, not in it
                "/usr/share/prometheus/alertmanager": Path("/usr/share/prometheus/alertmanager"),
            },
            {"/alertmanager": 65534, "/etc/alertmanager": 65534},
            ("/alertmanager",),
        ),
        "grafana": Image(
            "472",
            "/run.sh",
            {
                "/www/api/health": b"ok",
                "/run.sh": (
                    f"{SHELL}touch /var/lib/grafana/written /tmp/written\n"
                    "test -s /etc/grafana/provisioning/datasources/wok.yaml\n"
                    'test -s "$GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"\ntest -n "$GF_SECURITY_ADMIN_PASSWORD"\n'
                    "exec httpd -f -p 3000 -h /www\n"
                ).encode(),
            },
            {"/var/lib/grafana": 472},
        ),
        "wok-exporter": Image(
            "65532:65532",
            "/usr/bin/wok-exporter",
            {"/usr": exporter / "usr"},
            {"/var/lib/wok-exporter": 65532},
        ),
    }


def load(engine: Engine, collector: Path, jaeger: Path, exporter: Path) -> None:
    """Give the engine all images of compose.yaml; `exporter` are the files of its package."""
    made = images(collector, jaeger, exporter)
    services = compose_files.services()
    for name, image in made.items():
        image.load(engine, services[name]["image"])
    assert {service["image"] for service in services.values()} == {services[name]["image"] for name in made}
