//! What the readers of requests of all dialects have in common: the body as text, the model's name, ceilings of the
//! output.
//!
//! It knows no member by name but those that it is given.
//!
//! Start reading in [`basics`].

use super::json::member::{BodyField, is_space};
use crate::domain::call::{BodyProblem, CostFacts, GivenCeiling, RequestMetadata};
use crate::domain::estimate::MediaSize;

/// The longest model name taken as one: finding the nearest names to an unknown one costs time by
/// its length.
const MAX_MODEL_BYTES: usize = 256;

/// The body as text, and where its outermost object begins.
#[derive(Clone, Copy)]
pub(super) struct BodyText<'a> {
    pub(super) text: &'a str,
    pub(super) opening_brace: usize,
}

impl<'a> BodyText<'a> {
    /// # Errors
    /// It is not an object in UTF-8.
    pub(super) fn of(body: &'a [u8]) -> Result<Self, BodyProblem> {
        let text = std::str::from_utf8(body)
            .map_err(|error| BodyProblem::NotJson(format!("The body is not UTF-8 at byte {}.", error.valid_up_to())))?;
        match text.find(|c| !is_space(c)).filter(|&at| body[at] == b'{') {
            Some(opening_brace) => Ok(Self { text, opening_brace }),
            None => Err(BodyProblem::NotJson("The body is not a JSON object.".to_owned())),
        }
    }
}

/// What every endpoint's body holds; the rest as for a body that holds no more.
pub(super) fn basics(model: &BodyField<'_>, user: Option<&BodyField<'_>>) -> Result<RequestMetadata, BodyProblem> {
    let (Some(value), Some(name)) = (model.given(), model.string()?) else {
        return Err(model.bad("is required"));
    };
    if let Some(what) = model_name_problem(&name) {
        return Err(model.bad(&what));
    }
    Ok(RequestMetadata {
        model: name.into(),
        model_span: value.span(),
        user: user.map_or(Ok(None), BodyField::string)?.filter(|user| !user.is_empty()).map(Box::from),
        ..RequestMetadata::without_model()
    })
}

/// What is wrong with `name` as that of a model, whichever models there are.
pub(super) fn model_name_problem(name: &str) -> Option<String> {
    let is_possible = (1..=MAX_MODEL_BYTES).contains(&name.len());
    (!is_possible).then(|| format!("must be 1 to {MAX_MODEL_BYTES} bytes long"))
}

/// A ceiling of the output; zero is none.
pub(super) fn ceiling(member: &BodyField<'_>) -> Result<Option<u64>, BodyProblem> {
    Ok(member.whole_number()?.filter(|tokens| *tokens > 0))
}

/// What bounds the cost of an answer, where the ceilings on its output are `ceilings`, by [`CeilingName`].
///
/// [`CeilingName`]: crate::domain::call::CeilingName
pub(super) fn cost_facts(
    place: BodyText<'_>,
    ceilings: [Option<&BodyField<'_>>; 2],
    input_elsewhere: bool,
) -> Result<CostFacts, BodyProblem> {
    let given = |member: Option<&BodyField<'_>>| {
        let Some((member, value)) = member.and_then(|member| Some((member, member.value?))) else { return Ok(None) };
        Ok(Some(GivenCeiling { at: value.span(), tokens: ceiling(member)? }))
    };
    let [first, second] = ceilings;
    Ok(CostFacts {
        billed_later: false,
        candidates: 0,
        input_elsewhere,
        media: MediaSize::default(),
        ceilings: [given(first)?, given(second)?],
        ceiling_insert_at: Some(place.opening_brace + 1),
    })
}

/// Whether a member is a list with something in it.
pub(super) fn lists_some(member: &BodyField<'_>) -> Result<bool, BodyProblem> {
    Ok(member.list()?.is_some_and(|list| !list.is_empty()))
}

/// What messages hold besides text.
#[derive(Clone, Copy, Default)]
pub(super) struct ContentKinds {
    /// A content part is an image.
    pub(super) images: bool,
    /// Some input's tokens are bounded by nothing in the body: a file, a video, a kind we do not know, an id.
    pub(super) elsewhere: bool,
    /// Media in the body, whose bytes are not their tokens.
    pub(super) media: MediaSize,
}

impl ContentKinds {
    /// These and `other`.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            images: self.images | other.images,
            elsewhere: self.elsewhere | other.elsewhere,
            media: self.media.and(other.media),
        }
    }
}
