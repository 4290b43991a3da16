# portico completion for bash. Install: portico completion bash > ~/.local/share/bash-completion/completions/portico
_portico() {
    local IFS=$' \t\n' line="${COMP_LINE:0:COMP_POINT}" words
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local current="${words[${#words[@]}-1]}"
    mapfile -t COMPREPLY < <("${words[0]/#\~/$HOME}" __complete bash -- "${words[@]}" 2>/dev/null)
    # For bash a word begins anew after each of these.
    local head="${current%"${current##*[=:]}"}"
    [[ -n $head ]] && COMPREPLY=("${COMPREPLY[@]#"$head"}")
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/,] ]] && compopt -o nospace
    return 0
}
complete -o nosort -F _portico portico
