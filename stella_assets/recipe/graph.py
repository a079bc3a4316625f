"""The graph of a recipe: every step once, wired here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from stella_assets.core.errors import UserError
from stella_assets.core.step import Step, upstream
from stella_assets.corpus.build import corpus_step
from stella_assets.corpus.cleaned import cleaned_step
from stella_assets.corpus.contamination import contamination_step
from stella_assets.corpus.duplicates import duplicates_step
from stella_assets.corpus.evaluation_texts import evaluation_texts_step
from stella_assets.corpus.pairs import pairs_step
from stella_assets.evaluation.ranking.steps import dense_rankings_step, retriever_scores_step
from stella_assets.evaluation.report import report_step
from stella_assets.evaluation.report_inputs import ReportInputs
from stella_assets.evaluation.scores import (
    BASE_MODEL,
    CONCATENATION,
    base_model_scores_step,
    concatenation_scores_step,
    stage_scores_step,
    student_prompts,
    teacher_model,
    teacher_scores_step,
)
from stella_assets.evaluation.task_set import tasks_step
from stella_assets.evaluation.variants import variants_step
from stella_assets.recipe.recipe import Recipe
from stella_assets.release.active import active_scores_step
from stella_assets.release.gate import gate_step
from stella_assets.release.publish import ReleaseInputs, release_step
from stella_assets.release.rehearsal_step import rehearsal_step
from stella_assets.release.retrievers.index import retriever_index_step
from stella_assets.release.retrievers.inputs import RetrieverReleaseInputs
from stella_assets.release.retrievers.publish import retriever_release_step
from stella_assets.teachers.concatenate import concatenation_step
from stella_assets.teachers.encode import teacher_step
from stella_assets.teachers.mined_negatives import mined_negatives_step
from stella_assets.teachers.scorers.step import pair_scores_step
from stella_assets.teachers.semantic_duplicates import semantic_duplicates_step
from stella_assets.teachers.statistics import statistics_step
from stella_assets.teachers.suspects import suspects_step
from stella_assets.training.retrievers.step import retriever_step
from stella_assets.training.stage import stage_step
from stella_assets.training.tokens import tokens_step


class UnknownStepError(UserError):
    """A selection that names no step of the recipe."""


class Graph:
    """The steps of a recipe, each built once. Steps are compared by identity; nothing is looked up by a name.

    Args:
        recipe: What to distil.

    Example:
        >>> graph = Graph(read_recipe(Path("recipes/demo.yaml")))
        >>> for step in graph.steps:
        ...     runner.make(step)
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._name = recipe.name
        self._taught = [teacher for teacher in recipe.teachers if teacher.name in recipe.taught_by()]
        self._add_corpus()
        self._add_teachers()
        self.tokens = tokens_step(self._name, student=recipe.student, corpus=self.corpus)
        self.rehearsal = rehearsal_step(
            self._name, student=recipe.student, release=recipe.release, stages=recipe.stages
        )
        self.stages = self._add_stages(recipe.seed)
        self._add_retrievers()
        self._add_scores()
        self.report = self._add_report()
        self._add_release()

    @cached_property
    def steps(self) -> list[Step[Any]]:
        """All steps, inputs first."""
        ends = [
            self.pairs,
            self.mined_negatives,
            *self.pair_scores.values(),
            self.vector_stats,
            self.suspects,
            *(chain[-1] for chain in self.seeds.values()),
            self.release,
            *self.retriever_releases.values(),
            *self.retriever_indexes.values(),
        ]
        return upstream(*(step for step in ends if step is not None))

    def select(self, names: Sequence[str]) -> list[Step[Any]]:
        """The steps that people mean by words: the name of a step, or the first part of several, e.g. `scores`.

        Raises:
            UnknownStepError: A word names no step.
        """
        chosen: list[Step[Any]] = []
        for words in names:
            name = words.removeprefix(f"{self._name}/")
            matches = [step for step in self.steps if step.name == name or step.name.startswith(f"{name}/")]
            if not matches:
                raise UnknownStepError(
                    f"{words}: recipe {self._name!r} has no such asset.",
                    f"It has {', '.join(step.name for step in self.steps)}.",
                )
            chosen += matches
        return list(dict.fromkeys(chosen))

    def released(self, name: str) -> Step[Any]:
        """The release of the student or of a retriever, by the name of its step.

        Raises:
            UnknownStepError: No release has this name.
        """
        releases = {step.name: step for step in (self.release, *self.retriever_releases.values())}
        if name not in releases:
            raise UnknownStepError(
                f"{name}: is not a release of recipe {self._name!r}.", f"It has {', '.join(releases)}."
            )
        return releases[name]

    def _add_corpus(self) -> None:
        corpus = self.recipe.corpus
        self._sources = [source.name for source in corpus.sources]
        self.cleaned = cleaned_step(self._name, corpus=corpus, tokenizer=self.recipe.student)
        self.evaluation_texts = self.contamination = None
        if corpus.decontaminate:
            self.evaluation_texts = evaluation_texts_step(self._name, decontaminate=corpus.decontaminate)
            self.contamination = contamination_step(
                self._name,
                decontaminate=corpus.decontaminate,
                cleaned=self.cleaned,
                evaluation_texts=self.evaluation_texts,
            )
        self.duplicates = duplicates_step(
            self._name,
            deduplicate=corpus.deduplicate,
            sources=self._sources,
            cleaned=self.cleaned,
            contamination=self.contamination,
        )
        self.corpus = corpus_step(
            self._name,
            corpus=corpus,
            cleaned=self.cleaned,
            duplicates=self.duplicates,
            evaluation_texts=self.evaluation_texts,
            contamination=self.contamination,
        )
        self.pairs = None
        if any(source.gives_pairs for source in corpus.sources):
            removals = [step for step in (self.cleaned, self.contamination) if step is not None]
            self.pairs = pairs_step(
                self._name, corpus=corpus, texts=self.corpus, duplicates=self.duplicates, removals=removals
            )

    def _add_teachers(self) -> None:
        recipe = self.recipe
        self.teachers = {
            teacher.name: teacher_step(self._name, teacher=teacher, corpus=self.corpus) for teacher in recipe.teachers
        }
        self.concatenation = concatenation_step(
            self._name,
            recipe_digest=recipe.digest,
            teachers=recipe.teachers,
            vectors=self.teachers,
            corpus=self.corpus,
        )
        self.mined_negatives = None
        if recipe.mined_negatives and self.pairs:
            self.mined_negatives = mined_negatives_step(
                self._name, mine=recipe.mined_negatives, pairs=self.pairs, concatenation=self.concatenation
            )
        self.vector_stats = statistics_step(self._name, vectors=self.teachers, concatenation=self.concatenation)
        self.semantic_duplicates = self.suspects = None
        semantic = recipe.corpus.semantic
        if semantic and semantic.duplicates is not None:
            self.semantic_duplicates = semantic_duplicates_step(
                self._name,
                semantic=semantic,
                sources=self._sources,
                corpus=self.corpus,
                concatenation=self.concatenation,
            )
        if semantic and semantic.suspects is not None:
            assert recipe.corpus.decontaminate is not None, "the recipe was validated"
            assert self.evaluation_texts is not None, "so there are evaluation texts"
            self.suspects = suspects_step(
                self._name,
                semantic=semantic,
                decontaminate=recipe.corpus.decontaminate,
                teacher=next(teacher for teacher in recipe.teachers if teacher.name == semantic.teacher),
                vectors=self.teachers[semantic.teacher],
                corpus=self.corpus,
                evaluation_texts=self.evaluation_texts,
                concatenation=self.concatenation,
            )

    def _add_stages(self, seed: int, prefix: str = "") -> list[Step[Any]]:
        """The stages of the recipe, trained with a seed."""
        stages: list[Step[Any]] = []
        trains = [stage.trains_matryoshka_heads for stage in self.recipe.stages]
        first = 1 + trains.index(True) if any(trains) else None
        taught = tuple(teacher.name for teacher in self._taught)
        for number, stage in enumerate(self.recipe.stages, 1):
            stages.append(
                stage_step(
                    self._name,
                    number=number,
                    stage=stage,
                    student=self.recipe.student,
                    seed=seed,
                    concatenation=self.concatenation,
                    tokens=self.tokens,
                    semantic_duplicates=self.semantic_duplicates,
                    previous=stages[-1] if stages else None,
                    starts_matryoshka_heads=number == first,
                    rehearsal=None if stages else self.rehearsal,
                    pairs=self.pairs if stage.data == "pairs" else None,
                    mined_negatives=self.mined_negatives if stage.data == "pairs" else None,
                    teachers=None if len(taught) == len(self.recipe.teachers) else taught,
                    prefix=prefix,
                )
            )
        return stages

    def _add_retrievers(self) -> None:
        """Retrievers and the scores that they learn from, where another retriever may give these."""
        self.pair_scores: dict[str, Step[Any]] = {}
        self.retrievers: dict[str, Step[Any]] = {}
        for scorer in self.recipe.pair_scores:
            self._add_pair_scores(scorer.name)
        for retriever in self.recipe.retrievers:
            self._add_retriever(retriever.name)

    def _add_pair_scores(self, name: str | None) -> Step[Any] | None:
        if name is None:
            return None
        if name not in self.pair_scores:
            (scorer,) = (each for each in self.recipe.pair_scores if each.name == name)
            assert self.pairs is not None, "the recipe was validated"
            self.pair_scores[name] = pair_scores_step(
                self._name,
                scorer=scorer,
                pairs=self.pairs,
                mined_negatives=self.mined_negatives,
                corpus=self.corpus,
                concatenation=self.concatenation,
                retriever=self._add_retriever(scorer.scored_by()),
            )
        return self.pair_scores[name]

    def _add_retriever(self, name: str | None) -> Step[Any] | None:
        if name is None:
            return None
        if name not in self.retrievers:
            (retriever,) = (each for each in self.recipe.retrievers if each.name == name)
            assert self.pairs is not None, "the recipe was validated"
            self.retrievers[name] = retriever_step(
                self._name,
                retriever=retriever,
                student=self.recipe.student,
                seed=self.recipe.seed,
                corpus=self.corpus,
                pairs=self.pairs,
                mined_negatives=self.mined_negatives,
                scores=self._add_pair_scores(retriever.scores),
                stage=self.stages[-1],
            )
        return self.retrievers[name]

    def _add_scores(self) -> None:
        recipe, name = self.recipe, self._name
        self._prompts = student_prompts(recipe.student, recipe.evaluation)
        self.tasks = tasks_step(name, evaluation=recipe.evaluation, corpus=self.corpus, pairs=self.pairs)
        scores = {
            teacher_model(teacher.name): teacher_scores_step(
                name,
                teacher=teacher,
                vectors=self.teachers[teacher.name],
                tasks=self.tasks,
                evaluation=recipe.evaluation,
            )
            for teacher in recipe.teachers
            if teacher.is_scored()
        }
        # Of what the student learns: a teacher that no stage learns from is scored by itself only.
        if all(teacher.is_scored() for teacher in self._taught):
            scores[CONCATENATION] = concatenation_scores_step(
                name, teachers=self._taught, vectors=self.teachers, concatenation=self.concatenation, tasks=self.tasks
            )
        scores[BASE_MODEL] = base_model_scores_step(name, student=recipe.student, tasks=self.tasks)
        for number, stage in enumerate(self.stages, 1):
            scores[stage.stored_as] = self._stage_scores(stage, number)
        self.scores: dict[str, Step[Any]] = scores
        self.variants = variants_step(
            name,
            evaluation=recipe.evaluation,
            prompts=self._prompts,
            all_heads=recipe.trains_matryoshka_heads(len(self.stages)),
            dimension=recipe.release.dimension,
            stage=self.stages[-1],
            tasks=self.tasks,
        )
        self.seeds: dict[int, list[Step[Any]]] = {}
        for seed in recipe.evaluation.seeds:
            stages = self._add_stages(seed, f"seed_{seed}/")
            self.seeds[seed] = [*stages, self._stage_scores(stages[-1], len(stages), seed)]
        self.rankings = self._add_rankings()

    def _add_rankings(self) -> list[Step[Any]]:
        """How the dense models rank documents, and then each retriever; nothing for a recipe without retrievers."""
        if not self.retrievers:
            return []
        dense = dense_rankings_step(
            self._name, base_model=self.recipe.student, stages=self.stages, prompts=self._prompts, tasks=self.tasks
        )
        retrievers = [
            retriever_scores_step(
                self._name,
                settings=settings,
                retriever=self.retrievers[settings.name],
                dense=dense,
                tasks=self.tasks,
            )
            for settings in self.recipe.retrievers
        ]
        return [dense, *retrievers]

    def _stage_scores(self, stage: Step[Any], number: int, seed: int | None = None) -> Step[Any]:
        return stage_scores_step(
            self._name,
            stage=stage,
            prompts=self._prompts,
            all_heads=self.recipe.trains_matryoshka_heads(number),
            tasks=self.tasks,
            seed=seed,
        )

    def _add_report(self) -> Step[Any]:
        inputs = ReportInputs(
            corpus=self.corpus,
            contamination=self.contamination,
            teachers=self.teachers,
            concatenation=self.concatenation,
            vector_stats=self.vector_stats,
            suspects=self.suspects,
            stages=self.stages,
            tasks=self.tasks,
            scores=self.scores,
            variants=self.variants,
            seeds={seed: chain[-1] for seed, chain in self.seeds.items()},
            rankings=self.rankings,
        )
        return report_step(
            self._name,
            inputs=inputs,
            description=self.recipe.description,
            seed=self.recipe.seed,
            evaluation=self.recipe.evaluation,
        )

    def _add_release(self) -> None:
        recipe = self.recipe
        self.active_scores = active_scores_step(
            self._name, student=recipe.student, evaluation=recipe.evaluation, tasks=self.tasks
        )
        self.gate = gate_step(
            self._name,
            gate=recipe.release.gate,
            report=self.report,
            scores=list(self.scores.values()),
            active_scores=self.active_scores,
            student_model=self.stages[-1].stored_as,
            distribution=recipe.release.distribution,
            terms=recipe.stated_terms(),
        )
        self.release = release_step(
            self._name,
            inputs=ReleaseInputs(
                description=recipe.description,
                recipe_digest=recipe.digest,
                settings=recipe.release,
                student=recipe.student,
                prompts=self._prompts,
                teachers=self._taught,
                sources=recipe.corpus.sources,
                decontaminate=recipe.corpus.decontaminate,
                corpus=self.corpus,
                vectors={teacher.name: self.teachers[teacher.name] for teacher in self._taught},
                concatenation=self.concatenation,
                tasks=self.tasks,
                stages=self.stages,
                report=self.report,
                gate=self.gate,
            ),
        )
        self.retriever_releases = self._add_retriever_releases()
        self.retriever_indexes = {
            settings.name: retriever_index_step(
                self._name, settings=settings, corpus=self.corpus, retriever=self.retrievers[settings.name]
            )
            for settings in recipe.retrievers
            if settings.reranks is None
        }

    def _add_retriever_releases(self) -> dict[str, Step[Any]]:
        recipe = self.recipe
        return {
            settings.name: retriever_release_step(
                self._name,
                inputs=RetrieverReleaseInputs(
                    description=recipe.description,
                    recipe_digest=recipe.digest,
                    release=recipe.release,
                    settings=settings,
                    teachers=self._taught,
                    terms=recipe.retriever_terms(),
                    sources=recipe.corpus.sources,
                    corpus=self.corpus,
                    tasks=self.tasks,
                    retriever=self.retrievers[settings.name],
                    dense=self.rankings[0],
                    scores=scores,
                ),
            )
            for settings, scores in zip(recipe.retrievers, self.rankings[1:], strict=True)
        }
