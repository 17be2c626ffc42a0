pub(crate) fn serve(_: &str) -> Result<(), String> {
    Err("not yet".into())
}
