"""Tools of an MCP server, called from the sandbox. The server is a process of this machine that the sandbox cannot reach.

Needs ``pip install 'mcpadapt' 'mcp<2'``: smolagents' own adapter does not know version 2 of mcp.
"""

import sys
from pathlib import Path

from mcp import StdioServerParameters
from scripted import ScriptedModel
from smolagents import CodeAgent, ToolCollection

from belljar.integrations.smolagents import BelljarExecutor

server = StdioServerParameters(command=sys.executable, args=[str(Path(__file__).with_name("mcp_server.py"))])
with ToolCollection.from_mcp(server, trust_remote_code=True, structured_output=False) as tides:
    model = ScriptedModel('times = [high_tide(harbour="Hamburg", day=day) for day in (1, 2)]\nfinal_answer(times)')
    with CodeAgent(tools=[*tides.tools], model=model, executor=BelljarExecutor(), verbosity_level=0) as agent:
        print(agent.run("When is the tide high in Hamburg?"))
