"""A small MCP server over stdio, as they come from anywhere: it knows when the tide is high."""

from mcp.server.fastmcp import FastMCP

server = FastMCP("tides", log_level="ERROR")


@server.tool()
def high_tide(harbour: str, day: int = 1) -> str:
    """When the tide is high in a harbour, `day` days from now."""
    return f"{harbour}: {6 + day}:40"


if __name__ == "__main__":
    server.run()
