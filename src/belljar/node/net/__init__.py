"""Network slots: links, addresses, rules, name service. See README.md."""
