"""The Jupyter kernels of the image `code`: their specs, and how bash is started."""

import json
from collections.abc import Mapping

__all__ = ("KERNELS",)

_BASH: Mapping[str, object] = {
    "argv": ["/usr/bin/python3", "{resource_dir}/start.py", "-f", "{connection_file}"],
    "display_name": "Bash",
    "language": "bash",
    "env": {"PS1": "$"},
}
# bash_kernel types each line of a cell into a terminal, and pexpect waits 50 ms before each, for programs that ask for passwords:
# 2 s of the start, and a second of a cell of twenty lines. It sends every line by itself, with an end where there was none. Code
# that ends too early is an error to which nobody gives an answer. It sends one ^C, which nobody hears while a program is about to
# start, and leaves what runs on, and prompts that came twice, to the next cell.
_BASH_START = """\
import ctypes
import secrets
import signal

import pexpect

libc = ctypes.CDLL(None)


def hang_up():
    libc.prctl(1, signal.SIGHUP, 0, 0, 0)  # PR_SET_PDEATHSIG: when this kernel is killed its shell would stay


class Spawn(pexpect.spawn):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, preexec_fn=hang_up, **kwargs)
        self.delaybeforesend = None


pexpect.spawn = Spawn

from bash_kernel.kernel import BashKernel
from ipykernel.kernelapp import IPKernelApp


class Bash(BashKernel):
    # ipykernel looks at the names to see what it may give.
    def do_execute(self, code, silent, store_history=True, user_expressions=None, allow_stdin=False):
        try:
            reply = super().do_execute(code, silent, store_history, user_expressions, allow_stdin)
            if reply["status"] == "abort":
                self.settle()
            return reply
        except ValueError as error:
            self.settle()
            said = {"ename": "SyntaxError", "evalue": str(error).partition("\\n")[0], "traceback": []}
            self.send_response(self.iopub_socket, "error", said)
            return {**said, "status": "error", "execution_count": self.execution_count}
        except (KeyboardInterrupt, OSError, pexpect.EOF, pexpect.TIMEOUT):
            self.settle()
            return {"status": "abort", "execution_count": self.execution_count}
        finally:
            self.say(self.held)
            self.held = ""

    # Until bash is there again it gets ^C, and nothing else, for gVisor (2026-09) hears no ^C behind a line that nobody reads.
    # Then it answers a question of ours: what came before that is left to no other cell.
    def settle(self):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # ipykernel sets it anew for each cell
        wrapper = self.bashwrapper
        while True:
            try:
                wrapper.child.sendintr()
                wrapper._expect_prompt(timeout=1)
                token = secrets.token_hex(16)
                wrapper.child.sendline(f"echo {token[:16]}''{token[16:]}")
                wrapper.child.expect_exact(token, timeout=10)
                wrapper._expect_prompt(timeout=10)
                return
            except pexpect.TIMEOUT:
                pass
            except (OSError, pexpect.EOF):
                self._start_bash()
                return

    held = ""

    def process_output(self, output):
        self.held = (self.held + output).replace("\\r\\n", "\\n")
        if "\\n" in self.bashwrapper.child.buffer and len(self.held) < 32768:
            return  # the next line is there already
        # Half of a line's end, perhaps.
        keep = len(self.held) - self.held.endswith("\\r")
        text, self.held = self.held[:keep], self.held[keep:]
        end = max(text.rfind("\\n"), text.rfind("\\r")) + 1
        if end:
            super().process_output(text[:end])
        self.say(text[end:])

    def say(self, text):
        if text and not self.silent:
            self.send_response(self.iopub_socket, "stream", {"name": "stdout", "text": text})


IPKernelApp.launch_instance(kernel_class=Bash)
"""
_DENO: Mapping[str, object] = {
    "argv": ["/usr/local/bin/deno", "jupyter", "--kernel", "--conn", "{connection_file}"],
    "display_name": "JavaScript and TypeScript (Deno)",
    "language": "typescript",
    # A signal would end it.
    "interrupt_mode": "message",
    # `prepare` runs before the first cell: people who know Node expect require to be there. `explain` says what is wrong with
    # code that cannot be parsed, of which the kernel says only that it failed. `fence`: output may come after its cell has ended.
    "metadata": {
        "belljar": {
            "prepare": 'globalThis.require = (await import("node:module")).createRequire(Deno.cwd() + "/");',
            "explain": ["/usr/local/bin/deno", "fmt", "--check", "--ext=ts", "-"],
            "fence": 'await Deno.jupyter.broadcast("belljar_fence", {});',
        }
    },
    # It would ask its maker for a newer version.
    "env": {"DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"},
}
KERNELS: Mapping[str, str] = {
    "bash/kernel.json": json.dumps(_BASH, indent=1) + "\n",
    "bash/start.py": _BASH_START,
    "deno/kernel.json": json.dumps(_DENO, indent=1) + "\n",
}
"""Files below Jupyter's folder of kernels."""
