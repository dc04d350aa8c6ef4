import os
import signal
import subprocess
import sys
import threading

import pytest
from support.processes import is_running

from pipeline.jobs import processes

REQUESTS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def started():
    """Starts a program as the leader of a process group, once it prints `ready`."""
    running = []

    def start(code):
        code = f"import signal, time\n{code}\nprint('ready', flush=True)\nwhile True: time.sleep(1)"
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        running.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("ignored", ["()", "(signal.SIGINT, signal.SIGTERM)"])
def test_a_group_is_ended_whatever_signals_it_ignores(started, monkeypatch, ignored):
    monkeypatch.setattr(processes, "PATIENCE", 0.5)
    process = started(f"for one in {ignored}: signal.signal(one, signal.SIG_IGN)")
    processes.end_group(process.pid, *REQUESTS)
    assert not is_running(process.pid)


def test_another_ctrl_c_does_not_stop_the_clean_up(started, monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.5)
    process = started("signal.signal(signal.SIGINT, lambda *_: print('asked', flush=True))")

    def press_again():
        assert process.stdout.readline() == b"asked\n"
        os.kill(os.getpid(), signal.SIGINT)

    presses = threading.Thread(target=press_again)
    presses.start()
    try:
        processes.end_group(process.pid, *REQUESTS)
        presses.join()
    except KeyboardInterrupt:
        pytest.fail("the second Ctrl-C came through")
    assert not is_running(process.pid)


@pytest.mark.parametrize("number", REQUESTS)
def test_the_first_signal_is_noticed_and_the_second_acts_as_before(number):
    def handler(*_):
        raise KeyboardInterrupt

    before = signal.signal(number, handler)
    try:
        with processes.signals_noticed() as event:
            os.kill(os.getpid(), number)
            assert event.is_set()
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
