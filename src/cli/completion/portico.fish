# portico completion for fish. Install: portico completion fish > ~/.config/fish/completions/portico.fish
function __portico_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete fish -- $words 2>/dev/null
end
complete -c portico -f -k -a '(__portico_complete)'
