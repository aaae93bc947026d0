"""PostgreSQL: the only place that speaks SQL. One public method = one transaction = one durable step."""
