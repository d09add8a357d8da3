"""The init of the users' namespace: reaps orphans for ever.

It is a program of 100 bytes where we have one for the machine, so that users see ``init`` and not the agent's command line,
`pkill python` leaves it alone, and it costs no memory; elsewhere it is the forked interpreter itself.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal

__all__ = ("be_init", "init_program")

_CHILD = 17
_ORIGIN = 0x40_0000


def be_init(told: int, furnish: Callable[[], object]) -> None:
    """In the namespace's first process: `furnish`, say ``ok`` (or why not) to `told`, then reap. Never returns."""
    try:
        furnish()
        handed = _program_descriptor()
    except OSError as error:
        os.write(told, f"{error.filename}: {error.strerror}".encode())
        os._exit(1)
    for number in range(1, 65):
        if number not in (9, 19, _CHILD, 32, 33):
            signal.signal(number, signal.SIG_IGN)
    # Blocked in the program too: there is no handler to be called, only somebody who waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [_CHILD])
    os.dup2(0, 2)  # users find it as /proc/1/fd/2, and it leads to a file of the host's
    os.write(told, b"ok")
    if handed is not None:
        low = 3
        for fd in (handed, 4096):
            os.closerange(low, fd)
            low = fd + 1
        try:
            os.execve(handed, ["init"], {})
        except OSError:
            os.close(handed)  # then we do it ourselves
    os.closerange(3, 4096)
    while True:
        signal.sigwait([_CHILD])
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue


def init_program(machine: str) -> bytes | None:
    """A static ELF: waits for SIGCHLD (blocked by whoever starts it), then reaps all there is, for ever."""
    if machine != "x86_64":
        return None
    # 0: b8 80 00 00 00     mov eax, 128        rt_sigtimedwait(set, NULL, NULL, 8)
    #    bf __ __ __ __     mov edi, set
    #    31 f6 31 d2        xor esi, esi; xor edx, edx
    #    41 ba 08 00 00 00  mov r10d, 8
    #    0f 05              syscall
    # 22: b8 3d 00 00 00    mov eax, 61         wait4(-1, NULL, WNOHANG, NULL)
    #    48 83 cf ff        or rdi, -1
    #    31 f6              xor esi, esi
    #    ba 01 00 00 00     mov edx, 1
    #    45 31 d2           xor r10d, r10d
    #    0f 05              syscall
    #    85 c0              test eax, eax
    #    7f e7              jg 22
    #    eb cf              jmp 0
    head = 64 + 56
    wait = bytes.fromhex("b880000000bf") + b"%s" + bytes.fromhex("31f631d241ba080000000f05")
    reap = bytes.fromhex("b83d0000004883cfff31f6ba010000004531d20f0585c0")
    size = len(wait) - 2 + 4 + len(reap) + 4
    place = _ORIGIN + head + size
    code = wait.replace(b"%s", place.to_bytes(4, "little")) + reap
    again = len(wait) - 2 + 4
    code += bytes((0x7F, (again - (len(code) + 2)) & 0xFF))
    code += bytes((0xEB, (0 - (len(code) + 2)) & 0xFF))
    code += (1 << (_CHILD - 1)).to_bytes(8, "little")
    total = head + len(code)
    elf = bytes.fromhex("7f454c46020101000000000000000000") + bytes.fromhex("02003e0001000000")
    elf += (_ORIGIN + head).to_bytes(8, "little") + (64).to_bytes(8, "little") + bytes(8)
    elf += bytes(4) + bytes.fromhex("4000380001000000") + bytes(4)
    segment = bytes.fromhex("0100000005000000") + bytes(8) + _ORIGIN.to_bytes(8, "little") * 2
    segment += total.to_bytes(8, "little") * 2 + (0x1000).to_bytes(8, "little")
    return elf + segment + code


def _program_descriptor() -> int | None:
    """The program as something to execute that has no path; None where it cannot be had."""
    program = init_program(os.uname().machine)
    if program is None:
        return None
    try:
        fd = os.memfd_create("init", os.MFD_CLOEXEC)
    except OSError:
        return None
    os.write(fd, program)
    return fd
