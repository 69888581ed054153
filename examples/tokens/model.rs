//! A fake language model: it repeats the prompt and then itself.

const TEXT: &str = "Every word of this answer is an event of its own, without an id. The layer \
    keeps each as it comes, so a reader may leave and return. A browser that lost its connection \
    names the last event that it has seen, and the answer goes on after it: no word is lost, and \
    none comes twice. Umlauts such as äöü and signs such as 🚲 take several bytes, which no cut \
    may tear apart.";

/// Returns the tokens of an endless answer to a prompt.
pub(crate) fn answer(prompt: &str) -> impl Iterator<Item = String> + use<> {
    let paragraphs = (1..).flat_map(|number| {
        let words = TEXT.split_whitespace().map(|word| format!("{word} "));
        [format!("\n{number}. ")].into_iter().chain(words)
    });
    [format!("You wrote: {prompt}\n")]
        .into_iter()
        .chain(paragraphs)
}
