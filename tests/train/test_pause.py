"""Signals: noted, answered in time, and given back."""

import os
import signal
import time

import pytest

from handlens.train.pause import SIGNALS, OutOfTime, pause_on_signals


def test_signals_are_given_back():
    before = [signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)]
    with pause_on_signals() as pause:
        assert not pause()
        os.kill(os.getpid(), signal.SIGTERM)
        assert pause()
        assert pause.name == "SIGTERM"
        alarm = pause.alarm
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # the second one does not wait
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert alarm is not None and not alarm.is_alive()
    assert [signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)] == before


def test_ctrl_c_waits_for_the_step_however_long():
    with pause_on_signals(0.0) as pause:
        os.kill(os.getpid(), signal.SIGINT)
        assert pause()
        assert pause.alarm is None


def test_what_must_be_whole_is_finished_before_the_step_is_given_up():
    done = []
    with pause_on_signals(0.0) as pause, pytest.raises(OutOfTime), pause.hold():
        os.kill(os.getpid(), signal.SIGTERM)
        with pause.hold():
            time.sleep(0.05)  # the alarm rings here
        done.append("all")
    assert done == ["all"]


def test_time_for_the_checkpoint_is_kept_back():
    with pause_on_signals(10.0) as pause:
        pause.saving_seconds = 3.0
        os.kill(os.getpid(), signal.SIGTERM)
        assert pause.alarm is not None
        assert pause.alarm.interval == 10 - 2 * 3 - 0.5
