"""A cluster of one's own with certificates: what README.md says, word by word, with real processes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile

from pipeline.models.architecture import UNetConfig
from tests.random_models import save_random_model

README = Path(__file__).parents[2] / "README.md"
BIN = Path(sys.executable).parent


def free_port() -> int:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.slow
def test_the_readme_leads_to_a_cluster_that_turns_others_away(tmp_path: Path) -> None:
    (block,) = re.findall(r"```sh\n(openssl.*?)```", README.read_text(), re.DOTALL)
    port = free_port()
    *setup, scheduler, worker, run = block.replace("8786", str(port)).strip().splitlines()
    plain = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PREFECT_HOME": str(tmp_path / "home")}
    dump = [f"{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"]
    ended = subprocess.run(["bash", "-ec", "\n".join(setup + dump)], cwd=tmp_path, env=plain, capture_output=True,
                           text=True, check=True)  # fmt: skip
    secret = json.loads(ended.stdout.splitlines()[-1])
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", np.eye(60, 70, dtype=np.uint8))
    model = save_random_model(tmp_path / "model", UNetConfig(depth=1, base_channels=2), seed=3)
    run += f" --direct -m {model}"
    worker = worker.replace("configs/", f"{README.parent}/configs/")
    with (tmp_path / "log").open("wb") as log:
        processes = [
            subprocess.Popen(scheduler.split(), cwd=tmp_path, env=secret, stdout=log, stderr=log),
            subprocess.Popen(["env", *worker.split()], cwd=tmp_path, env=secret, stdout=log, stderr=log),
        ]
        try:
            wait = f"until (: < /dev/tcp/127.0.0.1/{port}) 2> {os.devnull}; do sleep 0.1; done"
            subprocess.run(["bash", "-c", wait], check=True, timeout=60)
            refused = subprocess.run(run.split(), cwd=tmp_path, env=plain, capture_output=True, text=True, check=False,
                                     timeout=120)  # fmt: skip
            assert refused.returncode == 2
            assert "needs certificates; name their files under distributed.comm.tls" in refused.stderr
            # Others' certificates are no better than none.
            (tmp_path / "other").mkdir()
            subprocess.run(setup[0].split(), cwd=tmp_path / "other", check=True, capture_output=True)
            others = {name: value.replace(f"{tmp_path}/", f"{tmp_path}/other/") if "__TLS__" in name else value
                      for name, value in secret.items()}  # fmt: skip
            refused = subprocess.run(run.split(), cwd=tmp_path, env=others, capture_output=True, text=True, check=False,
                                     timeout=120)  # fmt: skip
            assert refused.returncode == 2
            assert "no Dask scheduler answers" in refused.stderr
            done = subprocess.run(run.split(), cwd=tmp_path, env=secret, capture_output=True, text=True, check=False,
                                  timeout=200)  # fmt: skip
            assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
            ours = [psutil.Process(process.pid) for process in processes]
            listening = [each.laddr.ip for one in ours for process in (one, *one.children(recursive=True))
                         for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]  # fmt: skip
            assert len(listening) >= 4
            assert set(listening) == {"127.0.0.1"}
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait(60)
    assert json.loads((tmp_path / "results" / "run-summary.json").read_text())["counts"] == {"done": 1}
