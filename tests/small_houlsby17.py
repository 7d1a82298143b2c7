"""Small files in the formats of the publishers of Houlsby et al.'s 17 tasks: names of files, columns and labels."""

import csv

NEWSGROUPS = (
    "alt.atheism comp.graphics comp.os.ms-windows.misc comp.sys.ibm.pc.hardware comp.sys.mac.hardware comp.windows.x "
    "misc.forsale rec.autos rec.motorcycles rec.sport.baseball rec.sport.hockey sci.crypt sci.electronics sci.med "
    "sci.space soc.religion.christian talk.politics.guns talk.politics.mideast talk.politics.misc talk.religion.misc"
).split()
MESSAGES = "attack constituency information media mobilization other personal policy support".split()
EMOTIONS = "anger boredom empty enthusiasm fun happiness hate love neutral relief sadness surprise worry".split()
STANCE = (
    "q1_from_reading_the_tweet_which_of_the_options_below_is_most_likely_to_be_true_about_the_stance_or_outlook_of_the_"
    "tweeter_towards_the_target"
)
OPINION = "q2_which_of_the_options_below_is_true_about_the_opinion_in_the_tweet"


def write_csv(path, header, rows, encoding="latin-1"):
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_sms(directory, rows=40):
    """Tabs, no header, and quotes that are never closed."""
    lines = [f'{("ham", "spam")[number % 2]}\t"{"a good"[number % 2 :]} film {number}' for number in range(rows)]
    (directory / "SMSSpamCollection").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


def write_newsgroups(directory, each=2):
    """A file a message in a folder a group, in latin-1."""
    for group in NEWSGROUPS:
        (directory / group).mkdir(parents=True)
        for number in range(each):
            text = f"From: someone\nSubject: {group}\n\nA film caf\u00e9 {number}"
            (directory / group / str(50000 + number)).write_text(text, encoding="latin-1")
    return directory


def write_political(directory, rows=90):
    """Three tasks in one file."""
    header = ["_unit_id", "_golden", "audience", "audience:confidence", "bias", "message", "text"]
    table = [
        [
            n,
            "FALSE",
            ("national", "constituency")[n % 2],
            1,
            ("partisan", "neutral")[n // 2 % 2],
            MESSAGES[n % 9],
            f"a\xa0film {n}",
        ]
        for n in range(rows)
    ]
    write_csv(directory / "Political-media-DFE.csv", header, table)
    return directory


def write_news_aggregator(directory, rows=60):
    """Tabs, no header, and quotes that are never closed."""
    lines = [
        "\t".join([str(n), f'"A film {n}', "http://a", "Reuters", "betm"[n % 4], "story", "a.com", "1394470370698"])
        for n in range(rows)
    ]
    (directory / "newsCorpora.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


def write_complaints(directory, rows=120):
    """Every second complaint has no narrative."""
    header = ["Date received", "Product", "Issue", "Consumer complaint narrative", "Complaint ID"]
    table = [["2019-09-24", "Mortgage", f"issue {n % 3}", f"the plot, {n}" if n % 2 else " ", n] for n in range(rows)]
    write_csv(directory / "complaints.csv", header, table, encoding="utf-8")
    return directory


def _one_label(file, column, labels, text, encoding="latin-1"):
    """A file with columns beside those of text and label, 60 rows, and the labels in turn."""

    def write(directory, rows=60):
        table = [[n, labels[n % len(labels)], "1", f"a film, \u00e9 {n}"] for n in range(rows)]
        write_csv(directory / file, ["_unit_id", column, f"{column}:confidence", text], table, encoding)
        return directory

    return write


STANCES = ("AGAINST: we can infer it", "FOR: we can infer it", "NONE OF THE ABOVE", "NEUTRAL")
OPINIONS = ("1. The tweet explicitly expresses opinion", "2. The tweet expresses opinion about something else", "3. No")
WRITERS = {
    "20newsgroups": write_newsgroups,
    "airline": _one_label(
        "Airline-Sentiment-2-w-AA.csv", "airline_sentiment", ("negative", "neutral", "positive"), "text"
    ),
    "corporate_messaging": _one_label(
        "Corporate-messaging-DFE.csv", "category", ("Information", "Action", "Dialogue", "Exclude"), "text"
    ),
    "disasters": _one_label(
        "socialmedia-disaster-tweets-DFE.csv", "choose_one", ("Relevant", "Not Relevant", "Can't Decide"), "text"
    ),
    "economic_news_relevance": _one_label(
        "Full-Economic-News-DFE-839861.csv", "relevance", ("yes", "no", "not sure"), "text"
    ),
    "emotion": _one_label("text_emotion.csv", "sentiment", EMOTIONS, "content", encoding="utf-8"),
    "global_warming": _one_label(
        "1377884570_tweet_global_warming.csv", "existence", ("Yes", "No", "Y", "N", "NA"), "tweet"
    ),
    "political_audience": write_political,
    "political_bias": write_political,
    "political_message": write_political,
    "primary_emotions": _one_label("primary-plutchik-wheel-DFE.csv", "emotion", ("Joy", "Fear", "Trust"), "sentence"),
    "progressive_opinion": _one_label("progressive-tweet-sentiment.csv", OPINION, OPINIONS, "tweet"),
    "progressive_stance": _one_label("progressive-tweet-sentiment.csv", STANCE, STANCES, "tweet"),
    "us_economic_performance": _one_label("us-economic-newspaper.csv", "relevance", ("yes", "no", "not sure"), "text"),
    "customer_complaints": write_complaints,
    "news_aggregator": write_news_aggregator,
    "sms_spam": write_sms,
}
