"""`labelmill app`: a checkpoint and an output -> a page, served until Ctrl-C.

The only file that imports Gradio, which is an optional dependency, and tells it to keep to itself: no telemetry, no
share links, no fonts from elsewhere, its files in a folder of the app's own that goes with it.
"""

import contextlib
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.app import browse_tab, try_tab
from jobs.app.guard import Guard, is_loopback
from jobs.app.style import CSS, FONT, FONT_MONO
from jobs.exit_codes import EXIT_DONE
from jobs.job_file import made_job
from schemas.job import JobSpec

if TYPE_CHECKING:
    from pipeline.app.browse import OutputReader
    from pipeline.app.studio import Studio

_CLOSE_GRACE_S = 2
"""Open tabs hold connections; so long they may take to end."""
_KEPT_S = 3600
"""Uploads that are older are deleted."""
_OF_THE_APP = ("engine.", "limits.")
_SAMPLES_KEPT = 4
"""Uploads are refused while there are as many bytes of them as this many samples can have."""


def serve_app(*, checkpoint: str, output: str | None, overrides: Sequence[str], host: str, port: int) -> int:
    """Returns the exit code, once it was told to end.

    Args:
        overrides: `a.b=value`, of the engine and the limits.

    Raises:
        JobError: overrides that a job file would not take.
        RuntimeError: Gradio is not installed.
        ValueError: a checkpoint that cannot be loaded, or an output that is not finished.
        OSError: the address cannot be listened at.
    """
    job = _job(checkpoint, overrides)
    with tempfile.TemporaryDirectory(prefix="labelmill-app-", ignore_cleanup_errors=True) as folder:
        with _listening(host, port) as listener, contextlib.ExitStack() as stack:
            gr, uvicorn = _gradio(Path(folder))
            # Not at the top: what is missing or taken is told before they are imported.
            from pipeline.app.browse import OutputReader
            from pipeline.app.studio import Studio

            reader = stack.enter_context(contextlib.closing(OutputReader(output))) if output is not None else None
            studio = stack.enter_context(Studio(checkpoint=job.checkpoint, engine=job.engine, limits=job.limits))
            app = build_app(gr, studio, reader, host=host, uploads=Path(folder))
            config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_CLOSE_GRACE_S)
            with contextlib.suppress(KeyboardInterrupt):  # how one ends it
                _server(uvicorn, config, on_started=lambda: _say_where(host, listener)).run(sockets=[listener])
    return EXIT_DONE


def _job(checkpoint: str, overrides: Sequence[str]) -> JobSpec:
    """The settings as a job, so that they are checked as in a job file."""
    for override in overrides:
        if not override.startswith(_OF_THE_APP):
            raise ValueError(f"--set {override}: the app takes settings of {' and '.join(_OF_THE_APP)} only")
    document = {"name": "app", "source": "-", "checkpoint": checkpoint, "recipes": ["caption"], "output": "-"}
    return made_job(document, overrides)


def build_app(gr: Any, studio: "Studio", reader: "OutputReader | None", *, host: str, uploads: Path) -> Guard:
    """The ASGI application. `uploads`: Gradio's own folder (`GRADIO_TEMP_DIR`)."""
    from fastapi import FastAPI  # Gradio brings it

    limits = studio.limits
    mounted = gr.mount_gradio_app(
        FastAPI(openapi_url=None, docs_url=None, redoc_url=None),
        _page(gr, studio, reader, uploads),
        path="/",
        theme=gr.themes.Default(font=FONT, font_mono=FONT_MONO),
        css=CSS,
        footer_links=[],
        max_file_size=limits.max_bytes,
        show_error=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
    )
    max_uploaded_bytes = _SAMPLES_KEPT * limits.max_images * limits.max_bytes
    return Guard(mounted, only_loopback=is_loopback(host), uploads=uploads, max_uploaded_bytes=max_uploaded_bytes)


def _gradio(folder: Path) -> tuple[Any, Any]:
    """(gradio, uvicorn). Gradio reads its environment while it is imported."""
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SHARE": "False",
        "GRADIO_TEMP_DIR": str(folder),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    try:
        import gradio
        import uvicorn
    except ImportError as error:
        raise RuntimeError(
            f"labelmill app needs gradio, which is not installed here ({error}): pip install 'labelmill[app]'"
        ) from None
    return gradio, uvicorn


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Before anything is loaded: an address that is taken is told at once."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
    except OSError as error:
        raise OSError(f"cannot listen at {host}:{port} ({error}): choose another --port, or --port 0") from None
    with listener:
        yield listener


def _server(uvicorn: Any, config: Any, *, on_started: Callable[[], None]) -> Any:
    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            on_started()

        async def shutdown(self, sockets: Any = None) -> None:
            # Open tabs wait for news on connections that are cut here, each with a page of traces.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            await super().shutdown(sockets)

    return Server(config)


def _say_where(host: str, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    if not is_loopback(host):
        print(
            f"labelmill: warning: {shown} is not loopback: whoever reaches port {port} of this machine can use "
            "the model and read the output; there is no password",
            file=sys.stderr,
        )
    print(f"labelmill app: http://{shown}:{port}/ (Ctrl-C ends it)", flush=True)


def _page(gr: Any, studio: "Studio", reader: "OutputReader | None", uploads: Path) -> Any:
    with gr.Blocks(title="labelmill", analytics_enabled=False, delete_cache=(60, _KEPT_S)) as page:
        with gr.Tabs():
            with gr.Tab("Try", id="try"):
                try_tab.build(gr, studio, uploads)
            with gr.Tab("Browse", id="browse"):
                if reader is None:
                    browse_tab.build_without_output(gr)
                else:
                    browse_tab.build(gr, reader)
    page.has_launched = True  # Gradio checks the paths of uploads only then, and mounting does not say so
    page.queue(default_concurrency_limit=8, max_size=256)
    return page
