"""The function of RQ's documentation."""

from urllib.request import urlopen


def count_words_at_url(url):
    with urlopen(url) as response:
        return len(response.read().decode().split())
