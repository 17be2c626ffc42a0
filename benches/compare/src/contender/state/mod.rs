pub(crate) fn run(_: &str, _: &str, _: usize, _: usize, _: &[&str]) -> Result<(), String> {
    Err("not yet".into())
}
