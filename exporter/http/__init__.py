"""The HTTP server: connections, TLS, authentication, limits. It knows nothing of Wok."""
