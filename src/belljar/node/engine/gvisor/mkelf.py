"""The start helper that runsc looks for as gvisor-bin/gvisor-sentry-prewarmer, made without a compiler.

While the process has one thread it grows its table of descriptors to 256 slots (a duplicate of descriptor 0 at 255, closed
at once), then runs its first argument with the rest as that program's arguments. Doing the same later, with threads, costs
every start some 15 ms of kernel grace periods.
"""

import struct
from collections.abc import Sequence

__all__ = ("prewarmer",)

_BASE = 0x400000
_HEADERS = 64 + 56
_F_DUPFD_CLOEXEC = 1030
_LAST_SLOT = 255


def prewarmer(machine: str) -> bytes | None:
    """A static ELF program for this machine (as `platform.machine()` says), None where there is none."""
    if machine == "x86_64":
        return _elf(62, _x86_64())
    if machine == "aarch64":
        return _elf(183, _aarch64())
    return None


def _elf(machine: int, code: bytes) -> bytes:
    size = _HEADERS + len(code)
    entry = _BASE + _HEADERS
    ident = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    loaded = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    return ident + header + loaded + code


def _x86_64() -> bytes:
    code = _Assembler()
    code.put("48 8b 04 24")  # mov rax, [rsp]          argc
    code.put("48 83 f8 03")  # cmp rax, 3
    code.short_jump("7c", "usage")  # jl
    code.put("48 8d 5c 24 08")  # lea rbx, [rsp+8]     argv
    code.put("4c 8d 64 c4 10")  # lea r12, [rsp+rax*8+16]  envp
    code.put("b8 48 00 00 00")  # mov eax, fcntl
    code.put("31 ff")  # xor edi, edi
    code.put("be" + struct.pack("<I", _F_DUPFD_CLOEXEC).hex())  # mov esi, F_DUPFD_CLOEXEC
    code.put("ba" + struct.pack("<I", _LAST_SLOT).hex())  # mov edx, 255
    code.put("0f 05")  # syscall
    code.put("85 c0")  # test eax, eax
    code.short_jump("78", "run")  # js
    code.put("89 c7")  # mov edi, eax
    code.put("b8 03 00 00 00")  # mov eax, close
    code.put("0f 05")  # syscall
    code.label("run")
    code.put("48 8b 7b 08")  # mov rdi, [rbx+8]        argv[1]
    code.put("48 8d 73 10")  # lea rsi, [rbx+16]       argv + 2
    code.put("4c 89 e2")  # mov rdx, r12
    code.put("b8 3b 00 00 00")  # mov eax, execve
    code.put("0f 05")  # syscall
    code.put("bf 7f 00 00 00")  # mov edi, 127
    code.short_jump("eb", "exit")  # jmp
    code.label("usage")
    code.put("bf 01 00 00 00")  # mov edi, 1
    code.label("exit")
    code.put("b8 e7 00 00 00")  # mov eax, exit_group
    code.put("0f 05")  # syscall
    return code.assembled()


class _Assembler:
    """Bytes with names for places, so that the jumps need no counting."""

    def __init__(self) -> None:
        self._code = bytearray()
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    def put(self, text: str) -> None:
        self._code += bytes.fromhex(text)

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def short_jump(self, opcode: str, label: str) -> None:
        self.put(opcode + "00")
        self._jumps.append((len(self._code), label))

    def assembled(self) -> bytes:
        for end, label in self._jumps:
            self._code[end - 1] = self._labels[label] - end
        return bytes(self._code)


def _aarch64() -> bytes:
    words = [
        0xF94003F3,  # ldr x19, [sp]                argc
        0xF1000E7F,  # cmp x19, 3
        ("b.lt", "usage"),
        0x910023F4,  # add x20, sp, 8               argv
        0x8B130E95,  # add x21, x20, x19, lsl 3
        0x910022B5,  # add x21, x21, 8              envp
        _movz(0, 0),
        _movz(1, _F_DUPFD_CLOEXEC),
        _movz(2, _LAST_SLOT),
        _movz(8, 25),  # fcntl
        _SVC,
        ("tbnz w0, 31", "run"),
        _movz(8, 57),  # close
        _SVC,
        "run",
        0xF9400680,  # ldr x0, [x20, 8]             argv[1]
        0x91004281,  # add x1, x20, 16              argv + 2
        0xAA1503E2,  # mov x2, x21
        _movz(8, 221),  # execve
        _SVC,
        _movz(0, 127),
        ("b", "exit"),
        "usage",
        _movz(0, 1),
        "exit",
        _movz(8, 94),  # exit_group
        _SVC,
    ]
    return _link_aarch64(words)


_SVC = 0xD4000001


def _movz(register: int, value: int) -> int:
    return 0xD2800000 | value << 5 | register


def _link_aarch64(words: Sequence[int | str | tuple[str, str]]) -> bytes:
    places: dict[str, int] = {}
    count = 0
    for word in words:
        if isinstance(word, str):
            places[word] = count
        else:
            count += 1
    code: list[int] = []
    for word in words:
        if isinstance(word, int):
            code.append(word)
        elif isinstance(word, tuple):
            kind, label = word
            distance = places[label] - len(code)
            if kind == "b.lt":
                code.append(0x5400000B | (distance & 0x7FFFF) << 5)
            elif kind == "b":
                code.append(0x14000000 | (distance & 0x3FFFFFF))
            else:  # tbnz of bit 31 of register 0
                code.append(0x37F80000 | (distance & 0x3FFF) << 5)
    return struct.pack(f"<{len(code)}I", *code)
