#compdef portico
# portico completion for zsh. Install: portico completion zsh > a file _portico in a folder of $fpath
_portico() {
    local -a lines open closed
    local line value
    lines=("${(@f)$("${(Q)words[1]}" __complete zsh -- "${(@Q)words[1,CURRENT]}" 2>/dev/null)}")
    for line in $lines; do
        [[ -z $line ]] && continue
        value="${${line%%$'\t'*}//:/\\:}"
        [[ $line == *$'\t'* ]] && value+=":${line#*$'\t'}"
        if [[ ${line%%$'\t'*} == *[=/,] ]]; then open+=("$value"); else closed+=("$value"); fi
    done
    (( $#closed )) && _describe -V 'portico' closed
    (( $#open )) && _describe -V 'portico' open -S ''
    (( $#closed + $#open ))
}
if [[ $funcstack[1] == _portico ]]; then
    _portico "$@"
else
    compdef _portico portico
fi
