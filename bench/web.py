"""nginx as the server behind every path that is compared, and wrk as the client."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench.lab import SERVER_PORT, Lab, inside
from bench.peers import need, running

BIG_BYTES = 1 << 20
SERVERS = ("s1", "s2", "s3")
_UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "B": 1.0}


@asynccontextmanager
async def servers(made: Lab) -> AsyncGenerator[None]:
    """Run nginx in every server sandbox while the block runs; `/` is short, `/big` is 1 MiB."""
    need("nginx", "nginx-light")
    need("wrk", "wrk")
    made.forget_closed_connections()
    (made.directory / "big").write_bytes(bytes(BIG_BYTES))
    (made.directory / "small").write_bytes(b"hello\n")
    async with AsyncExitStack() as stack:
        for name in SERVERS:
            config = made.directory / f"nginx-{name}.conf"
            config.write_text(_config(made.directory, name))
            command = inside(made.sandbox(name), "nginx", "-c", str(config))
            log = made.directory / f"nginx-{name}.log"
            await stack.enter_async_context(running(*command, log=log))
        await asyncio.sleep(0.5)  # nginx has no way to say that it listens
        yield


def _config(directory: Path, name: str) -> str:
    return f"""
daemon off; master_process off; worker_processes 1; pid {directory}/nginx-{name}.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; keepalive_requests 1000000; client_body_temp_path {directory}/b;
  server {{ listen {SERVER_PORT} backlog=4096; root {directory};
    location = / {{ try_files /small =404; }} location = /big {{ }} }}
}}
"""


async def wrk(
    namespace: Path, url: str, *, connections: int, seconds: int, close: bool = False
) -> tuple[float, float]:
    """Return (requests per second, bytes per second) of one run of wrk.

    close: a new connection for every request.

    Raises:
        RuntimeError: requests failed.
    """
    headers = ("-H", "Connection: close") if close else ()
    command = inside(namespace, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *headers, url)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output = (await process.communicate())[0].decode()
    requests = re.search(r"Requests/sec:\s+([\d.]+)", output)
    transfer = re.search(r"Transfer/sec:\s+([\d.]+)([KMG]?B)", output)
    if process.returncode or not requests or not transfer or "Non-2xx" in output:
        raise RuntimeError(f"wrk {url} failed: {output}")
    return float(requests[1]), float(transfer[1]) * _UNITS[transfer[2]]
