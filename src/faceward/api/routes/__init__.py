"""The routes: each reads a request, calls the service, and answers. No SQL, no numpy, no decisions."""
