"""Have launchd or systemd run the server at every login, in place of the server before it."""
