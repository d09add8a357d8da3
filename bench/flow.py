"""One big stream into or out of a sandbox, as a client of its own. Prints a line when it begins, then MB/s."""

import sys
from time import perf_counter

import belljar
from measure import rate

__all__ = ("main",)

PIECE = 1 << 20


def main(ref: str, way: str, size: int) -> None:
    sandbox = belljar.Sandbox.get(ref)
    command = "exec cat > /dev/null" if way == "in" else f"exec head -c {size} /dev/zero"
    process = sandbox.popen(command)
    print("begins", flush=True)
    started = perf_counter()
    if way == "in":
        for _ in range(size // PIECE):
            process.stdin.write(bytes(PIECE))
        process.stdin.close()
    else:
        got = 0
        while piece := process.stdout.read1(PIECE):
            got += len(piece)
        if got != size:
            raise SystemExit(f"{got} bytes came instead of {size}")
    if process.wait(timeout=60) != 0:
        raise SystemExit("the command failed")
    print(rate(size, perf_counter() - started), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
