import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.signals import stop_requests, stopping_on_signals
from pipeline.formats.errors import StoppedBySignal

ROOT = Path(__file__).parent.parent


def test_a_signal_raises_within_the_block_only():
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(StoppedBySignal, match="SIGUSR1; run again"), stopping_on_signals():
        os.kill(os.getpid(), signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_signal_is_a_question_between_steps():
    with stopping_on_signals(), stop_requests() as should_stop:
        assert not should_stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert should_stop()


def test_a_stopped_job_ends_with_75_and_leaves_nothing_half_done(tmp_path):
    study = {"name": "a", "output": "out", "simulate": {"num_clusters": 10**8}}
    (tmp_path / "study.json").write_text(json.dumps(study))
    words = [sys.executable, "-m", "jobs.cli", "simulate", str(tmp_path / "study.json")]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("out/.tmp-simulated/*.root")):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "stopped by SIGTERM; run again to continue" in told
    assert list((tmp_path / "out").iterdir()) == []
