"""All domains of extraction; the first is that of persons."""

from __future__ import annotations

from training.corpus.domain import Domain
from training.corpus.domains_goods import GOODS
from training.corpus.domains_more import MORE

DOMAINS: tuple[Domain, ...] = (*GOODS, *MORE)
