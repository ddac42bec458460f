"""What bots speak, each protocol in a file of its own: pure translators, without sockets and clocks."""
