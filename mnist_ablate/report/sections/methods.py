"""How this was done: pairing, intervals, verdicts, diverged runs."""

from mnist_ablate.inference.analysis import Analysis
from mnist_ablate.language import say
from mnist_ablate.report.format import percent
from mnist_ablate.report.section import Section


def section(analysis: Analysis) -> Section:
    """Return the methods, with the numbers of the study's rule."""
    judgements = analysis.judgements
    return Section(
        "read",
        say("How this was done"),
        _template(analysis),
        values={
            "family": len(judgements),
            "alpha": percent(analysis.study.alpha),
            "share": percent(1 - judgements[0].alpha) if judgements else "",
            "looks": analysis.study.looks,
            "paired": analysis.paired,
            "labelled": analysis.study.pairing == "labels",
            "summarised": analysis.study.summarised,
            "guessing": analysis.response().guessing is not None,
            "beforehand": not any(judgement.provisional for judgement in judgements),
        },
        style="prose",
    )


def _template(analysis: Analysis) -> str:
    if analysis.ours:
        return TEMPLATE
    if analysis.trained:
        return OWN
    return SEARCH if analysis.study.searched else ELSEWHERE


_VERDICTS = """\
{% if family %}
    <p><strong>{% trans %}Verdicts.{% endtrans %}</strong> {% if beforehand %}{% trans %}The study's file states each
      hypothesis, as it did before the
      first run: what is compared, in which direction, and the smallest effect that
      matters.{% endtrans %}{% else %}{% trans %}The study's file states each hypothesis: what is compared, in which
      direction, and the smallest effect that matters.{% endtrans %}{% endif +%}
      {% if family > 1 and looks | length > 1 %}{% trans %}All
      {{ family }} hypotheses are one family: the chance that any of its verdicts is false is at most
      {{ alpha }}, whenever the study stops, if the noise is not far from
      Gaussian.{% endtrans %}{% elif family > 1 %}{% trans %}All
      {{ family }} hypotheses are one family: the chance that any of its verdicts is false is at most
      {{ alpha }}, if the noise is not far from Gaussian.{% endtrans %}{% elif looks | length > 1 %}{% trans %}The
      chance that its verdict is false is at most
      {{ alpha }}, whenever the study stops, if the noise is not far from
      Gaussian.{% endtrans %}{% else %}{% trans %}The chance that its verdict is false is at most
      {{ alpha }}, if the noise is not far from Gaussian.{% endtrans %}{% endif +%}
      {% if family > 1 or looks | length > 1 %}{% trans %}So each is decided by one interval,
      the one that is shown. It is wider than the usual one, {{ share }}, and says both on which side of a border an
      effect lies and whether it lies between two borders.{% endtrans %}{% else %}{% trans %}One interval decides, the
      one that is shown. It says both on which side of a border an effect lies and whether it lies between two
      borders.{% endtrans %}{% endif %} {% trans %}An interval that crosses a border settles nothing, and the
      page says how large a study might settle it. <em>Not
      settled</em> does not mean <em>no effect</em>: only <em>too small to matter</em> means that.{% endtrans %}</p>
    <p>{% trans %}p values, Holm's adjustment of them, and sign flips (which need no Gaussian noise) are shown, and
      decide
      nothing.{% endtrans +%}
      {% if looks | length > 1 %}{% trans n_looks=looks | length, first=looks[0], step=looks[1] - looks[0],
      most=looks[-1] %}Verdicts may be read at {{ n_looks }} looks, at {{ first }} seeds
      and after every {{ step }} more up to {{ most }}. The intervals hold at all looks at once, so
      early ones are much wider, and those of earlier looks cut those of later ones (<em>repeated confidence
      intervals</em>). The looks have to be fixed before the first run: a
      verdict at any other number is provisional.{% endtrans %}{% else %}{% trans %}The size of the study has to be
      fixed before the first run: a
      verdict at any other is provisional.{% endtrans %}{% endif %}</p>
{% endif %}
"""
TEMPLATE = (
    """
    <p><strong>{% trans %}Paired by seed.{% endtrans %}</strong> {% trans %}A seed decides the same things in every
      cell, so cells are compared
      <em>within</em> each seed, and whatever a seed does to all of them cancels. Every comparison gives one number
      per seed. Their mean is the estimate, and their spread says how sure it is (Student's t, without assuming that
      cells have equal spreads).{% endtrans %}</p>
    <p>{% trans %}<strong>Intervals.</strong> A 95&nbsp;% interval contains the true effect 95 times in 100. It is
      about other
      seeds on the same test images, unless it says that it is about new ones, too. <strong>Interactions</strong> are
      differences of differences. They vary more than the effects themselves, so they need more seeds.{% endtrans %}</p>
"""
    + _VERDICTS
    + """\
    <p>{% if guessing %}{% trans %}<strong>Runs that diverge</strong> stay in as networks that guess: an accuracy of
      10&nbsp;%, a loss of ln 10, and
      no gap and no probes.{% endtrans %}{% else %}{% trans %}<strong>Runs that diverge</strong> have no values, and are
      failures of their cells.{% endtrans %}{% endif %} {% trans %}Where more than 5&nbsp;% of the runs of a comparison
      lack its number, or more in one cell
      than in another, there is no verdict. The <strong>gap</strong> is the loss on validation images minus the loss on
      training images, with the same weights. No run uses the test images for training or for
      a choice.{% endtrans %}</p>
"""
)
SEARCH = (
    """
    <p>{% trans %}<strong>Coefficients.</strong> The settings have too many values for cells, or were drawn, so their
      coefficients
      are estimated together by least squares, without interactions. A setting whose values are numbers has a slope,
      for each doubling where all are above 0 and else for each unit; any other has a difference of each level to the
      first. There are at least 20 runs for each coefficient. Rows of one run (folds, evaluations, repeats) are averaged
      first; seeds pair nothing. Where runs share settings, the intervals are about other seeds at these
      settings.{% endtrans %}</p>
    <p>{% trans %}<strong>Intervals.</strong> A 95&nbsp;% interval contains the true coefficient 95 times in 100:
      Student's t, with
      standard errors (HC3) that let some runs spread more than others.{% endtrans %}</p>
"""
    + _VERDICTS
    + """\
    <p>{% trans %}<strong>Runs that failed</strong>, or whose metric is not a finite number, are failures and no
      absence. Where they are more than 5&nbsp;% of the runs, or more at one end of a setting than at the
      other (Mann and Whitney's test, p &lt; 0.05), there is no verdict; where the range of the metric is known, the
      page says what the
      coefficient can be at the worst.{% endtrans %}</p>
"""
)
OWN = (
    """
    <p><strong>{% trans %}Paired by seed.{% endtrans %}</strong> {% trans %}A training of
      the user's own made the runs. A seed splits the data alike in every cell, and gives the same streams of chance,
      so cells are compared <em>within</em> each seed. Every comparison gives one number per seed. Their mean is
      the estimate, and their spread says how sure it is (Student's
      t).{% endtrans %}</p>
    <p>{% trans %}<strong>Intervals.</strong> A 95&nbsp;% interval contains the true effect 95 times in 100. It is about
      other seeds on the same data. What the training uses the test data for, this page cannot know.{% endtrans %}</p>
"""
    + _VERDICTS
    + """\
    <p>{% trans %}<strong>Runs that failed</strong>, or gave a metric that is not a finite number, are not stored, and
      are listed above. A comparison uses the seeds that all its cells have.{% endtrans %}</p>
"""
)
ELSEWHERE = (
    """
{% if summarised %}
    <p>{% trans %}<strong>Means alone.</strong> The table has numbers of runs, means and standard deviations, so its
      cells are compared as independent ones. What paired their runs is lost, and so is how single runs
      lay.{% endtrans %}</p>
{% endif %}
{% if labelled %}
    <p><strong>{% if paired %}{% trans %}Paired by seed.{% endtrans %}{% else %}{% trans %}What is
      paired.{% endtrans %}{% endif %}</strong> {% trans %}Cells are compared <em>within</em>
      seeds where
      at least half of the seeds of each are in all of them: every seed that has all the cells gives one number, their
      mean is the estimate, and their spread says how sure it is (Student's t). The labels of the seeds decide that,
      and never how alike their values are. A label that stands in two cells must mean the same draws of chance.
      Where the cells share no seeds, their runs are independent: the weighted sum of the means, Welch's variance, and
      degrees of freedom after Satterthwaite. Rows of one run (folds, evaluations, repeats) are averaged
      first.{% endtrans %}</p>
    <p>{% trans %}<strong>Intervals.</strong> A 95&nbsp;% interval contains the true effect 95 times in 100. It is
      about other
      seeds on the same data. A yes or no of each run has McNemar's exact test (paired) or Newcombe's interval (not).
      Where differences take five values or fewer, their median is estimated. Where fewer than 30 are far from
      Gaussian, flips of their signs must agree before there is an effect.{% endtrans %}</p>
{% else %}
    <p>{% trans %}<strong>Nothing is paired.</strong> The runs are independent: an effect is the weighted sum of the
      means of cells, with Welch's variance, and degrees of freedom after Satterthwaite. A yes or no of each run has
      Newcombe's interval. Rows of one run (folds, evaluations, repeats) are averaged first.{% endtrans %}</p>
    <p>{% trans %}<strong>Intervals.</strong> A 95&nbsp;% interval contains the true effect 95 times in 100. It is
      about other runs on the same data.{% endtrans %}</p>
{% endif %}
"""
    + _VERDICTS
    + """\
    <p>{% trans %}<strong>Runs that failed</strong>, or whose metric is not a finite number, are failures and no
      absence. Where
      they are more than 5&nbsp;% of the runs of a comparison, or more on one side than on the other (Fisher's exact
      test, p &lt; 0.05), there is no verdict; where the range of the metric is known, the page says what the effect
      can be at the worst.{% endtrans %}{% if labelled %} {% trans %}Missing seeds are left out of the comparisons that
      need them.{% endtrans %}{% endif %}</p>
"""
)
