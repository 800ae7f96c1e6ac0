"""Has launchd or systemd run the server at every login, in place of an older server."""
