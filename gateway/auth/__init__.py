"""Who is calling: Cognito ID tokens, groups, and the account endpoints outside production."""
