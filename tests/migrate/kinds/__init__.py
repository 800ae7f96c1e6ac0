"""Every kind of store with its real engine and client, for the tests that all of them take."""
