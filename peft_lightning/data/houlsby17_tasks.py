"""The 17 additional tasks of Houlsby et al. 2019: which file, which columns, which labels, how many rows.

Sizes and numbers of classes are those of Table 3 (arXiv:1902.00751). The publisher's file was read for
corporate_messaging, global_warming and sms_spam, and gives exactly the paper's sizes and mean lengths. Of the others,
file names and columns are those of public code that reads them. Not confirmed by a file: which rows of
us_economic_performance and of the two progressive tasks the paper left out, and that issues classify complaints.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from peft_lightning.data.readers import Delimited

CROWDFLOWER = "Crowdflower, Data for Everyone (later Figure Eight, then Appen)"
UCI = "UCI Machine Learning Repository"
# Programs for spreadsheets wrote most of Crowdflower's files; they are not UTF-8.
LATIN_CSV = Delimited(encoding="latin-1")
NEWS_COLUMNS = ("ID", "TITLE", "URL", "PUBLISHER", "CATEGORY", "STORY", "HOSTNAME", "TIMESTAMP")
STANCE = (
    "q1_from_reading_the_tweet_which_of_the_options_below_is_most_likely_to_be_true_about_the_stance_or_outlook_of_the_"
    "tweeter_towards_the_target"
)
OPINION = "q2_which_of_the_options_below_is_true_about_the_opinion_in_the_tweet"
NEWSGROUPS = (
    "alt.atheism comp.graphics comp.os.ms-windows.misc comp.sys.ibm.pc.hardware comp.sys.mac.hardware comp.windows.x "
    "misc.forsale rec.autos rec.motorcycles rec.sport.baseball rec.sport.hockey sci.crypt sci.electronics sci.med "
    "sci.space soc.religion.christian talk.politics.guns talk.politics.mideast talk.politics.misc talk.religion.misc"
)
EMOTIONS = "anger boredom empty enthusiasm fun happiness hate love neutral relief sadness surprise worry"
MESSAGES = "attack constituency information media mobilization other personal policy support"


@dataclass(frozen=True)
class HubCopy:
    """A copy on the Hub.

    Args:
        name: Its id.
        text: Column of the text.
        label: Column of the label.
    """

    name: str
    text: str
    label: str


@dataclass(frozen=True)
class Houlsby17Task:
    """One task.

    Args:
        file: What the publisher calls the file, or the archive of folders.
        publisher: Who offers it, and under which name.
        text: Column of the text.
        label: Column of the label.
        labels: The labels in the order of their numbers; empty: all that the file holds, sorted.
        sizes: Training, validation and test examples in the paper.
        classes: Number of labels in the paper.
        layout: How the file is written; None for folders, one a label.
        other_spellings: How else the file may write a label -> the label.
        left_out: Column -> cells whose rows are no examples.
        hub: A copy on the Hub, if one is known.
    """

    file: str
    publisher: str
    text: str
    label: str
    labels: tuple[str, ...]
    sizes: tuple[int, int, int]
    classes: int
    layout: Delimited | None = LATIN_CSV
    other_spellings: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hub: HubCopy | None = None


HOULSBY17_TASKS: dict[str, Houlsby17Task] = {
    # 18,846 messages are those of 20news-bydate; their mean length in the paper is that with headers.
    "20newsgroups": Houlsby17Task(
        file="20news-bydate.tar.gz or 20news-18828.tar.gz",
        publisher="qwone.com/~jason/20Newsgroups",
        text="text",
        label="label",
        labels=tuple(NEWSGROUPS.split()),
        sizes=(15076, 1885, 1885),
        classes=20,
        layout=None,
        # Of the Hub's copy headers, signatures and quotations were removed, which leaves some messages empty.
        left_out={"text": ("",)},
        hub=HubCopy("SetFit/20_newsgroups", text="text", label="label_text"),
    ),
    "airline": Houlsby17Task(
        file="Airline-Sentiment-2-w-AA.csv",
        publisher=f"{CROWDFLOWER}: Airline Twitter sentiment",
        text="text",
        label="airline_sentiment",
        labels=("negative", "neutral", "positive"),
        sizes=(11712, 1464, 1464),
        classes=3,
    ),
    "corporate_messaging": Houlsby17Task(
        file="Corporate-messaging-DFE.csv",
        publisher=f"{CROWDFLOWER}: Corporate messaging",
        text="text",
        label="category",
        labels=("Action", "Dialogue", "Exclude", "Information"),
        sizes=(2494, 312, 312),
        classes=4,
    ),
    "disasters": Houlsby17Task(
        file="socialmedia-disaster-tweets-DFE.csv",
        publisher=f"{CROWDFLOWER}: Disasters on social media",
        text="text",
        label="choose_one",
        labels=("Not Relevant", "Relevant"),
        sizes=(8688, 1086, 1086),
        classes=2,
        left_out={"choose_one": ("Can't Decide",)},
    ),
    "economic_news_relevance": Houlsby17Task(
        file="Full-Economic-News-DFE-839861.csv",
        publisher=f"{CROWDFLOWER}: Economic News Article Tone and Relevance",
        text="text",
        label="relevance",
        labels=("no", "yes"),
        sizes=(6392, 799, 800),
        classes=2,
        left_out={"relevance": ("not sure",)},
    ),
    "emotion": Houlsby17Task(
        file="text_emotion.csv",
        publisher=f"{CROWDFLOWER}: Emotion in text",
        text="content",
        label="sentiment",
        labels=tuple(EMOTIONS.split()),
        sizes=(32000, 4000, 4000),
        classes=13,
        layout=Delimited(),
    ),
    "global_warming": Houlsby17Task(
        file="1377884570_tweet_global_warming.csv",
        publisher=f"{CROWDFLOWER}: Sentiment of climate change",
        text="tweet",
        label="existence",
        labels=("N", "Y"),
        sizes=(3380, 422, 423),
        classes=2,
        other_spellings={"No": "N", "Yes": "Y"},
        left_out={"existence": ("NA", "N/A", "")},
    ),
    "political_audience": Houlsby17Task(
        file="Political-media-DFE.csv",
        publisher=f"{CROWDFLOWER}: Classification of political social media",
        text="text",
        label="audience",
        labels=("constituency", "national"),
        sizes=(4000, 500, 500),
        classes=2,
    ),
    "political_bias": Houlsby17Task(
        file="Political-media-DFE.csv",
        publisher=f"{CROWDFLOWER}: Classification of political social media",
        text="text",
        label="bias",
        labels=("neutral", "partisan"),
        sizes=(4000, 500, 500),
        classes=2,
    ),
    "political_message": Houlsby17Task(
        file="Political-media-DFE.csv",
        publisher=f"{CROWDFLOWER}: Classification of political social media",
        text="text",
        label="message",
        labels=tuple(MESSAGES.split()),
        sizes=(4000, 500, 500),
        classes=9,
    ),
    "primary_emotions": Houlsby17Task(
        file="primary-plutchik-wheel-DFE.csv",
        publisher=f"{CROWDFLOWER}: Primary emotions of statements",
        text="sentence",
        label="emotion",
        labels=(),
        sizes=(2019, 252, 253),
        classes=18,
    ),
    "progressive_opinion": Houlsby17Task(
        file="progressive-tweet-sentiment.csv",
        publisher=f"{CROWDFLOWER}: Progressive issues sentiment analysis",
        text="tweet",
        label=OPINION,
        labels=(),
        sizes=(927, 116, 116),
        classes=3,
        left_out={OPINION: ("",)},
    ),
    "progressive_stance": Houlsby17Task(
        file="progressive-tweet-sentiment.csv",
        publisher=f"{CROWDFLOWER}: Progressive issues sentiment analysis",
        text="tweet",
        label=STANCE,
        labels=(),
        sizes=(927, 116, 116),
        classes=4,
        left_out={STANCE: ("",)},
    ),
    "us_economic_performance": Houlsby17Task(
        file="us-economic-newspaper.csv",
        publisher=f"{CROWDFLOWER}: U.S. economic performance based on news articles",
        text="text",
        label="relevance",
        labels=("no", "yes"),
        sizes=(3961, 495, 496),
        classes=2,
        left_out={"relevance": ("not sure",)},
    ),
    # 157 classes are issues: the database has 18 products. It grows daily, so that today's file is larger.
    "customer_complaints": Houlsby17Task(
        file="complaints.csv",
        publisher="Consumer Financial Protection Bureau: Consumer Complaint Database",
        text="Consumer complaint narrative",
        label="Issue",
        labels=(),
        sizes=(146667, 18333, 18334),
        classes=157,
        layout=Delimited(),
        left_out={"Consumer complaint narrative": ("",)},
    ),
    # Business, entertainment, health (m), science and technology (t).
    "news_aggregator": Houlsby17Task(
        file="newsCorpora.csv",
        publisher=f"{UCI}: News Aggregator",
        text="TITLE",
        label="CATEGORY",
        labels=("b", "e", "m", "t"),
        sizes=(338349, 42294, 42294),
        classes=4,
        layout=Delimited(delimiter="\t", quoted=False, header=NEWS_COLUMNS),
    ),
    "sms_spam": Houlsby17Task(
        file="SMSSpamCollection",
        publisher=f"{UCI}: SMS Spam Collection",
        text="text",
        label="label",
        labels=("ham", "spam"),
        sizes=(4459, 557, 558),
        classes=2,
        layout=Delimited(delimiter="\t", quoted=False, header=("label", "text")),
        hub=HubCopy("ucirvine/sms_spam", text="sms", label="label"),
    ),
}
