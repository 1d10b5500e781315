"""A server's processes: all that come from it, their CPU time, their memory, their end."""

import ctypes
import os
import signal
import time

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans():
    """From now on a descendant whose parent ends becomes our child, so that no server can leave us by forking."""
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def end_with_parent():
    """For a child, before it runs its program: it is told to end if its parent is killed."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def descendants():
    return psutil.Process().children(recursive=True)


class Tree:
    """CPU time and memory of all our descendants; those that ended keep what they used when last seen."""

    def __init__(self):
        self.seen = {}

    def sample(self):
        """CPU seconds so far, sum of resident bytes now, number of processes."""
        processes, resident = descendants(), 0
        for process in processes:
            try:
                times = process.cpu_times()
                self.seen[process.pid] = times.user + times.system
                resident += process.memory_info().rss
            except psutil.Error:
                pass
        return sum(self.seen.values()), resident, len(processes)

    @staticmethod
    def proportional():
        """Bytes of memory, each shared page divided among those that share it."""
        total = 0
        for process in descendants():
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                pass
        return total


def end_all(first=None):
    """Ends every descendant: asks `first` alone, then all, then kills. Returns when none is left."""
    for number, wait_s, who in (
        (signal.SIGINT, 8, [first] if first else []),
        (signal.SIGTERM, 5, None),
        (signal.SIGKILL, 5, None),
    ):
        for pid in [process.pid for process in descendants()] if who is None else who:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            try:  # whatever ended among our children, adopted ones as well
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            time.sleep(0.1)
