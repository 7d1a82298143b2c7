"""Houlsby et al.'s 17 tasks: the publishers' formats, which rows are examples, and how they are split."""

import json

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from small_houlsby17 import write_csv, write_newsgroups, write_political, write_sms

from peft_lightning.data import Houlsby17
from peft_lightning.data.houlsby17_tasks import HOULSBY17_TASKS
from peft_lightning.errors import UserError

# The small files of these tests have fewer rows than the paper.
pytestmark = pytest.mark.filterwarnings("ignore:.*Houlsby et al. had", "ignore:.*splits are drawn at random")


def read(task, source, **options):
    data = Houlsby17(task, source=str(source), **options)
    return data, {split: data.table(split).to_list() for split in ("train", "validation", "test")}


def rows_of(tables):
    return sorted((row for table in tables.values() for row in table), key=lambda row: row["row"])


def test_the_table_is_that_of_the_paper():
    """17 tasks; every split is 80/10/10 of its total, as the reader makes it."""
    assert len(HOULSBY17_TASKS) == 17
    for task in HOULSBY17_TASKS.values():
        total = sum(task.sizes)
        held_out = total - int(0.8 * total)
        assert task.sizes == (total - held_out, held_out // 2, held_out - held_out // 2)
        assert not task.labels or len(set(task.labels)) == task.classes


@pytest.mark.parametrize("given", ["directory", "file"])
def test_sms_spam_has_no_header_and_its_quotes_are_characters(tmp_path, given):
    source = write_sms(tmp_path) / ("SMSSpamCollection" if given == "file" else "")
    data, tables = read("sms_spam", source)
    assert [len(tables[split]) for split in ("train", "validation", "test")] == [32, 4, 4]
    assert rows_of(tables)[:2] == [
        {"row": 1, "text": '"a good film 0', "label": 0},
        {"row": 2, "text": '" good film 1', "label": 1},
    ]
    assert data.task_description["labels"] == ["ham", "spam"]
    assert sum(row["label"] for row in tables["test"]) == 2
    _, again = read("sms_spam", source)
    assert again == tables
    assert read("sms_spam", source, split_seed=1)[1] != tables


def test_corporate_messaging(tmp_path):
    header = ["_unit_id", "category", "category:confidence", "id", "screenname", "text"]
    labels = ("Information", "Action", "Dialogue", "Exclude")
    rows = [[n, labels[n % 4], 1, "4.37E+17", "Barclays", f'A "film", Zürich\n{n}'] for n in range(60)]
    write_csv(tmp_path / "Corporate-messaging-DFE.csv", header, rows)
    data, tables = read("corporate_messaging", tmp_path)
    assert rows_of(tables)[1] == {"row": 2, "text": 'A "film", Zürich\n1', "label": 0}
    assert data.labels == ["Action", "Dialogue", "Exclude", "Information"]


def test_lines_may_end_as_on_old_macs(tmp_path):
    content = "category,text\r" + "".join(f"{('Action', 'Exclude')[n % 2]},a film {n}\r" for n in range(30))
    (tmp_path / "Corporate-messaging-DFE.csv").write_bytes(content.encode())
    _, tables = read("corporate_messaging", tmp_path)
    assert rows_of(tables)[29] == {"row": 30, "text": "a film 29", "label": 2}


def test_global_warming_leaves_out_rows_without_answer_and_the_others_keep_their_numbers(tmp_path):
    answers = ["Yes", "NA", "N", "Y", "N/A", "No", ""]
    rows = [[f"a film {n}", answers[n % 7], 1] for n in range(70)]
    path = write_csv(
        tmp_path / "1377884570_tweet_global_warming.csv", ["tweet", "existence", "existence.confidence"], rows
    )
    data, tables = read("global_warming", path)
    assert [(row["row"], row["label"]) for row in rows_of(tables)[:5]] == [(1, 1), (3, 0), (4, 1), (6, 0), (8, 1)]
    assert sum(map(len, tables.values())) == 40
    assert data.example("train", 0)["true"] in ("N", "Y")


@pytest.mark.parametrize(("task", "labels"), [("audience", 2), ("bias", 2), ("message", 9)])
def test_one_file_poses_three_political_tasks(tmp_path, task, labels):
    data, tables = read(f"political_{task}", write_political(tmp_path))
    assert len(data.labels) == labels == len({row["label"] for row in rows_of(tables)})
    assert rows_of(tables)[0]["text"] == "a\xa0film 0"


@pytest.mark.parametrize("layout", ["18828", "bydate"])
def test_20_newsgroups_are_folders_of_messages(tmp_path, layout):
    for part in ("20news-bydate-train", "20news-bydate-test") if layout == "bydate" else ("",):
        write_newsgroups(tmp_path / part)
    data, tables = read("20newsgroups", tmp_path)
    rows = rows_of(tables)
    assert len(rows) == (80 if layout == "bydate" else 40)
    assert rows[0]["text"].startswith("From: someone\nSubject: alt.atheism\n\nA film café 0")
    assert {row["label"] for row in rows} == set(range(20))
    assert data.labels[0] == "alt.atheism"


def test_news_aggregator_has_tabs_no_header_and_open_quotes(tmp_path):
    lines = [
        "\t".join([str(n), f'"A film {n}', "http://a", "Reuters", "betm"[n % 4], "story", "a.com", "1394470370698"])
        for n in range(60)
    ]
    (tmp_path / "newsCorpora.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data, tables = read("news_aggregator", tmp_path)
    assert [row["text"] for row in rows_of(tables)[:2]] == ['"A film 0', '"A film 1']
    assert data.labels == ["b", "e", "m", "t"]
    assert [row["label"] for row in rows_of(tables)[:4]] == [0, 1, 3, 2]


def test_complaints_without_narrative_are_left_out_and_rare_issues_stay_in_train(tmp_path):
    header = ["Date received", "Product", "Issue", "Consumer complaint narrative", "Complaint ID"]
    rows = [["2019-09-24", "Mortgage", f"issue {n % 3}", f"the plot, {n}" if n % 2 else " ", n] for n in range(120)] + [
        ["2019-09-25", "Mortgage", "rare", "a film", 121],
        ["2019-09-25", "Mortgage", "unheard", "", 122],
    ]
    write_csv(tmp_path / "complaints.csv", header, rows, encoding="utf-8")
    data, tables = read("customer_complaints", tmp_path)
    assert data.labels == ["issue 0", "issue 1", "issue 2", "rare"]
    assert [len(tables[split]) for split in ("train", "validation", "test")] == [48, 6, 7]
    assert tables["train"][-1] == {"row": 121, "text": "a film", "label": 3}
    assert {row["label"] for row in tables["test"]} == {0, 1, 2}


def test_labels_of_progressive_tasks_are_those_of_the_file(tmp_path):
    task = HOULSBY17_TASKS["progressive_stance"]
    stances = ["AGAINST: we can infer it", "FOR: we can infer it", "", "NONE OF THE ABOVE"]
    write_csv(tmp_path / task.file, [task.label, "tweet"], [[stances[n % 4], f"a film {n}"] for n in range(60)])
    data, tables = read("progressive_stance", tmp_path)
    assert data.labels == [stances[0], stances[1], stances[3]]
    assert len(rows_of(tables)) == 45


def test_the_hubs_copy_of_sms_spam_has_other_columns(tmp_path):
    features = Features({"sms": Value("string"), "label": ClassLabel(names=["ham", "spam"])})
    rows = {"sms": [f"a film {n}\n" for n in range(40)], "label": [n % 2 for n in range(40)]}
    (tmp_path / "plain_text").mkdir()
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "plain_text" / "train-00000-of-00001.parquet")
    assert rows_of(read("sms_spam", tmp_path)[1])[1] == {"row": 2, "text": "a film 1\n", "label": 1}


def test_the_hubs_copy_of_20_newsgroups_is_split_anew_without_its_empty_messages(tmp_path):
    names = HOULSBY17_TASKS["20newsgroups"].labels
    for split, count in (("train", 60), ("test", 40)):
        rows = [
            {"text": "" if n == 5 else f"a film {n}", "label": n % 20, "label_text": names[n % 20]}
            for n in range(count)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    _, tables = read("20newsgroups", tmp_path)
    assert len(rows_of(tables)) == 98


def test_a_hub_copy_with_the_publishers_columns_may_hold_nothing_where_the_file_is_empty(tmp_path):
    task = HOULSBY17_TASKS["customer_complaints"]
    rows = {task.text: [f"the plot {n}" if n % 2 else None for n in range(60)], task.label: ["a", "b", "c"] * 20}
    Dataset.from_dict(rows).to_parquet(tmp_path / "train.parquet")
    data, tables = read("customer_complaints", tmp_path)
    assert data.labels == ["a", "b", "c"]
    assert [row["row"] for row in rows_of(tables)][:2] == [2, 4]


def test_other_sizes_than_the_papers_are_told(tmp_path):
    with pytest.warns(UserWarning, match=r"has 32 / 4 / 4 examples of 2 labels, and Houlsby et al. had 4459 / 557"):
        read("sms_spam", write_sms(tmp_path))


def test_too_few_rows_for_all_labels_are_split_at_random_and_told(tmp_path):
    write_newsgroups(tmp_path, each=3)
    with pytest.warns(UserWarning, match="too few rows for its labels to be in every split"):
        _, tables = read("20newsgroups", tmp_path)
    assert [len(tables[split]) for split in ("train", "validation", "test")] == [48, 6, 6]
    assert len({row["row"] for row in rows_of(tables)}) == 60


def test_an_unknown_task_lists_all(refused, tiny, tmp_path):
    options = ["--data=Houlsby17", "--data.task=spam", f"--run_dir={tmp_path}", "--trainer.max_epochs=1"]
    sentence = refused(["fit", "--model=LoRA", f"--model.backbone={tiny()}", *options])
    assert all(name in sentence for name in ["task is 'spam'", *HOULSBY17_TASKS])


def test_a_task_without_hub_copy_says_what_to_download():
    with pytest.raises(UserError, match=r"download text_emotion\.csv \(Crowdflower.*: Emotion in text\).*--data\.sou"):
        Houlsby17("emotion")


@pytest.mark.parametrize("source", ["", "none.csv"])
def test_a_missing_file_is_named(tmp_path, source):
    with pytest.raises(
        UserError, match=r"is neither Political-media-DFE\.csv \(Crowdflower.*download the file"
    ) as refusal:
        Houlsby17("political_bias", source=str(tmp_path / source)).table("train")
    assert "\n" not in str(refusal.value)


BAD_FILES = [
    ("sms_spam", b"", "SMSSpamCollection is empty"),
    (
        "sms_spam",
        b"ham\ta film\nspam a film\n",
        r"SMSSpamCollection, row 2 has 1 fields and should have 2 \(label, text\)",
    ),
    ("sms_spam", b"ham\ta film\nspam\ta\xe9 film\n", r"SMSSpamCollection, row 2: column 'text' is not utf-8"),
    ("sms_spam", b"ham\ta film\nspam\t \n", r"row 2: column 'text' is empty"),
    ("sms_spam", b"ham\ta film\nspan\ta film\n", r"row 2: column 'label' holds 'span', which is not one of the labels"),
    (
        "emotion",
        b"sentiment,text\nhate,a film\n",
        r"text_emotion\.csv has no column 'content'; its columns are sentiment",
    ),
    (
        "emotion",
        b"sentiment,content\nhate,a film\nfun,\xff\n",
        r"text_emotion\.csv, row 2: column 'content' is not utf-8",
    ),
    ("emotion", b"sentiment,content\nhate,a film\nbore,a\n", r"row 2: column 'sentiment' holds 'bore'"),
    ("emotion", b"sentiment,content\nhate,a film\nfun\n", r"row 2 has 1 fields and should have 2"),
    ("emotion", b"sentiment,content\nhate,a film\nfun,\n", r"row 2: column 'content' is empty"),
    ("emotion", b'sentiment,content\nhate,"' + b"a" * 200_000 + b'"\n', r"row 1 cannot be read: field larger"),
    ("disasters", b"choose_one,text\nCan't Decide,\nMaybe,a film\n", r"row 2: column 'choose_one' holds 'Maybe'"),
]


@pytest.mark.parametrize(("task", "content", "message"), BAD_FILES)
def test_a_wrong_row_is_named_by_file_row_and_column(tmp_path, task, content, message):
    (tmp_path / HOULSBY17_TASKS[task].file).write_bytes(content)
    with pytest.raises(UserError, match=message) as refusal:
        Houlsby17(task, source=str(tmp_path)).table("train")
    assert str(tmp_path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_empty_message_and_a_missing_group_are_named(tmp_path):
    write_newsgroups(tmp_path)
    (tmp_path / "sci.med" / "50001").write_text("\n")
    with pytest.raises(UserError, match=r"sci\.med/50001 \(row 28\) is empty"):
        Houlsby17("20newsgroups", source=str(tmp_path)).table("train")
    for path in (tmp_path / "sci.med").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"Folder .*sci\.med does not exist or has no files"):
        Houlsby17("20newsgroups", source=str(tmp_path)).table("train")


def test_a_hub_copy_with_other_columns_is_refused(tmp_path):
    Dataset.from_dict({"body": ["a film"], "label": ["ham"]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(
        UserError, match=r"has no column 'sms'; its columns are body, label; give SMSSpamCollection \(UCI"
    ):
        Houlsby17("sms_spam", source=str(tmp_path)).table("train")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_files_that_were_converted_since_are_read_as_what_they_are(tmp_path, encoding, tiny):
    rows = [("caf\u00e9 is warming", "Yes", "1") for _ in range(20)] + [("it is not", "No", "1") for _ in range(20)]
    path = tmp_path / HOULSBY17_TASKS["global_warming"].file
    write_csv(path, ("tweet", "existence", "existence.confidence"), rows, encoding)
    data = Houlsby17(task="global_warming", source=str(path), backbone=str(tiny()))
    assert data.table("train")["text"][0] == "caf\u00e9 is warming"
