"""What happens when something dies: the server, a client, the disk."""
