"""What a replica remembers of where nodes are, until it is written down."""

from __future__ import annotations

from perak.adapters.feeds.config import GridFile
from perak.domain.whereabouts import reach_km
from perak.server.sightings import Sightings


def test_what_could_not_be_written_is_news_until_it_is() -> None:
    sightings = Sightings(GridFile(place=(-33.87, 151.21)))
    sightings.connected("node", "192.0.2.1")
    sightings.answered("node", 0.004)
    news = sightings.take_news()
    assert [(node, seen.km) for node, seen in news] == [("node", reach_km(0.004))]
    assert sightings.take_news() == []
    sightings.take_back(news)
    sightings.answered("node", 0.002)
    assert [seen.km for _, seen in sightings.take_news()] == [reach_km(0.002)]


def test_a_node_that_left_is_no_news() -> None:
    sightings = Sightings(GridFile(place=(-33.87, 151.21)))
    sightings.connected("node", "192.0.2.1")
    news = sightings.take_news()
    sightings.left("node")
    sightings.take_back(news)
    assert sightings.take_news() == []
