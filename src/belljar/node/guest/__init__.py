"""Host side of the guest agent. See README.md."""
