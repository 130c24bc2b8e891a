"""The built-in handlers, one per file or package. Each imports only what any plugin may import."""
