"""Bags of words and logistic regression: what a classifier of texts must beat. By scikit-learn."""

from collections.abc import Sequence
from importlib.util import find_spec

from utils.tasks.rows import Row


def tfidf(
    train: Sequence[str], labels: Sequence[int], val: Sequence[str], truth: Sequence[int]
) -> dict[str, Row]:
    """{"tf-idf": loss and accuracy} of words and pairs of words; {} without scikit-learn."""
    if find_spec("sklearn") is None:
        return {}
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, log_loss
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(max_iter=1000)
    ).fit(train, labels)
    p = model.predict_proba(val)
    loss = log_loss(truth, p, labels=model.classes_)
    return {"tf-idf": {"val_loss": loss, "accuracy": accuracy_score(truth, p.argmax(1))}}
