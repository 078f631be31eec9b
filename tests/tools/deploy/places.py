"""Paths in the repository."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
DEPLOY = REPOSITORY / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
DOCS = REPOSITORY / "docs"
