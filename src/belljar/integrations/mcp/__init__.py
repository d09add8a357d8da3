"""Belljar as an MCP server: sandboxes as tools for a model's client, over stdio or streamable HTTP. Needs ``belljar[mcp]``."""

from belljar.integrations.mcp.http import http_app
from belljar.integrations.mcp.policy import Policy
from belljar.integrations.mcp.server import opened
from belljar.integrations.mcp.stdio import serve_stdio

__all__ = ("Policy", "http_app", "opened", "serve_stdio")
