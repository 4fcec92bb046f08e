"""PostgreSQL with pgvector: schema, galleries and search. Knows no images."""
